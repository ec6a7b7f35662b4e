"""Bakes: plan, submit, read, follow, cancel, and what a worker does with those that were queued."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from service.actions import checkpoints
from service.actions.services import Services
from service.actions.work import Notes, failed
from service.domain.bake_plans import BakePlan, chosen
from service.domain.bakes import Bake, BakePage, BakeReport, BakeRequest, BakeState, NewBake, Stage
from service.domain.edits import Edit, EditReader, EditState
from service.domain.receipts import ReceiptFor
from service.domain.versions import NewVersion
from service.errors import BakeEnded, BakeNotFound, BaseMismatch, EditNotFound

SECONDS_BETWEEN_LOOKS = 0.5
"""How often a bake that is followed is looked at."""


async def plan(services: Services, request: BakeRequest) -> BakePlan:
    """What a bake would do; nothing is kept.

    Raises:
        As `bake_plans.chosen` and `Baker.plan`.
    """
    planned, newest = await _planned(services, request)
    return planned if newest is None else replace(planned, seconds=_seconds(planned, newest))


async def submit(
    services: Services, request: BakeRequest, *, actor: str, receipt: ReceiptFor[Bake] | None = None
) -> Bake:
    """Queue a bake of the edits as they are now.

    Raises:
        As `bake_plans.chosen` and `Baker.plan`.
        AlreadyAnswered, IdempotencyKeyReused: By the claim of the receipt.
    """
    planned, _ = await _planned(services, request)
    async with services.store.reading() as reading:
        parent = (await reading.serving.now()).active
    new = NewBake(request=planned.request, base=planned.base, edits=planned.edits, parent=parent)
    async with services.store.recording(receipt=receipt) as recording:
        bake = await recording.bakes.add(new, actor=actor)
        if receipt is not None:
            receipt.settle(bake)
        return bake


async def read(services: Services, bake_id: str) -> Bake:
    """The bake of that id.

    Raises:
        BakeNotFound: There is none.
    """
    async with services.store.reading() as reading:
        return _found(await reading.bakes.get(bake_id), bake_id)


async def page(services: Services, *, limit: int, after: str | None) -> BakePage:
    """Bakes older than the id `after`, newest first."""
    async with services.store.reading() as reading:
        return await reading.bakes.page(limit=limit, after=after)


async def follow(services: Services, bake_id: str, *, stopping: asyncio.Event) -> AsyncIterator[Bake]:
    """The bake as it is, and again whenever it has moved, until it has ended or the service is stopping.

    Raises:
        BakeNotFound: There is none of that id.
    """
    shown: Bake | None = None
    while not stopping.is_set():
        bake = await read(services, bake_id)
        if bake != shown:
            yield bake
        if bake.state.ended:
            return
        shown = bake
        try:
            async with asyncio.timeout(SECONDS_BETWEEN_LOOKS):
                await stopping.wait()
        except TimeoutError:
            continue


async def cancel(services: Services, bake_id: str) -> Bake:
    """End a bake that is queued or running; the worker stops when it next notes progress.

    Raises:
        BakeNotFound: There is none of that id.
        BakeEnded: It has ended.
    """
    async with services.store.recording() as recording:
        before = _found(await recording.bakes.get(bake_id), bake_id)
        after = _found(await recording.bakes.cancel(bake_id), bake_id)
    if before.state.ended or after.state is not BakeState.CANCELLED:
        raise BakeEnded(f"{bake_id} has ended: it is {after.state}.")
    return after


async def run(services: Services, bake_id: str) -> None:
    """Bake what was queued, from the beginning if a worker was stopped in the middle.

    What it, or an interrupted one before it, has put and no version names is removed.

    Raises:
        EditNotFound: An edit is no longer in force as it was when the bake was asked for.
        BaseMismatch: Another base model is loaded than then.
        And as `Baker.bake` and `Artifacts.put`.
    """
    async with services.store.recording() as recording:
        bake = await recording.bakes.start(bake_id)
    if bake is not None:
        with tempfile.TemporaryDirectory(prefix="errata-") as folder:
            await _bake(services, bake, Path(folder) / "delta.safetensors")
    await checkpoints.collect(services)


async def give_up(services: Services, bake_id: str, error: Exception) -> None:
    """Note why a bake failed."""
    async with services.store.recording() as recording:
        await recording.bakes.fail(bake_id, failed("bake", bake_id, error))
    await checkpoints.collect(services)


async def _planned(services: Services, request: BakeRequest) -> tuple[BakePlan, Bake | None]:
    """The plan, and the newest bake with the same method that was measured."""
    async with services.store.reading() as reading:
        in_force = await reading.edits.in_force()
        newest = await reading.bakes.newest_measured(request.method)
    edits, left_out = chosen(request, in_force)
    return await services.baker.plan(request, edits, left_out), newest


def _seconds(planned: BakePlan, newest: Bake) -> float:
    """What the newest bake took, by the pass and by the probe."""
    assert newest.report is not None, "it was measured"
    spent, then = newest.report.seconds, newest.report
    preparing = spent[Stage.PREPARING.value] * len(planned.edits) / len(newest.edits)
    return preparing + spent[Stage.MEASURING.value] * planned.probes / then.probes


async def _bake(services: Services, bake: Bake, file: Path) -> None:
    if bake.base.is_other_than(loaded := await services.baker.base()):
        raise BaseMismatch(
            f"{bake.id} was asked for on {bake.base.name} ({bake.base.fingerprint[:12]}), and {loaded.name} "
            f"({loaded.fingerprint[:12]}) is loaded."
        )
    async with services.store.reading() as reading:
        edits = await _as_they_were(reading.edits, bake)
    notes, stages = Notes(services.store, "bake", bake.id), set[Stage]()

    async def progress(stage: Stage, percent: int) -> bool:
        begun = stage not in stages
        stages.add(stage)
        return await notes.make(lambda recording: recording.bakes.advance(bake.id, stage, percent), at_once=begun)

    report = await services.baker.bake(bake.request, edits, file, progress=progress)
    if report is None:
        return
    if report.refusal is not None:
        async with services.store.recording() as recording:
            await recording.bakes.refuse(bake.id, report)
    elif await progress(Stage.STORING, 0):
        await _write(services, bake, report, file)


async def _write(services: Services, bake: Bake, report: BakeReport, file: Path) -> None:
    """Keep the artifact, then write the version; the first without the second is removed as if it had not been."""
    artifact = await services.artifacts.describe(file)
    async with services.store.recording() as recording:
        if not await recording.bakes.claim(bake.id, artifact):
            return
    await services.artifacts.put(file, artifact)
    new = NewVersion(
        parent=bake.parent,
        base=bake.base,
        edits=bake.edits,
        method=bake.request.method,
        config=bake.request.config,
        report=report,
        artifact=artifact,
    )
    try:
        async with services.store.writing(actor=bake.actor) as writing:
            await _as_they_were(writing.edits, bake)
            version = await writing.versions.add(new)
            _require(await writing.bakes.finish(bake.id, report, version=version.id))
    except _Cancelled:
        return
    await services.runtime.catch_up()


class _Cancelled(Exception):
    """The bake was cancelled before its version was written, which undoes the transaction."""


def _require(running: bool) -> None:  # noqa: FBT001 - the answer of the store
    if not running:
        raise _Cancelled


async def _as_they_were(reader: EditReader, bake: Bake) -> tuple[Edit, ...]:
    """The edits of a bake, if they are what they were when it was asked for.

    Raises:
        EditNotFound: One is not in force, or has changed.
    """
    now = {one.edit.id: one.edit for one in await reader.with_ids(tuple(edit.id for edit in bake.edits))}
    for edit in bake.edits:
        found = now.get(edit.id)
        if found is None or found.state is not EditState.ACTIVE or found.revision != edit.revision:
            raise EditNotFound(
                f"{edit.id} is no longer in force as it was when {bake.id} was asked for.",
                hint="Bake again with the edits that are in force now.",
                extra={"edit_id": edit.id},
            )
    return tuple(now[edit.id] for edit in bake.edits)


def _found(bake: Bake | None, bake_id: str) -> Bake:
    if bake is None:
        raise BakeNotFound(f"There is no bake {bake_id}.")
    return bake
