"""Checkpoints: list, show, serve and export versions, and keep what they are made of in order."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.actions.services import Services
from service.domain.receipts import ReceiptFor
from service.domain.serving import Move, Outdated, Serving, ServingReader, activation, outdated, rollback
from service.domain.versions import BASE_VERSION, ExportFormat, Version, VersionPage
from service.errors import ArtifactDamaged, BaseMismatch, ErrataError, NothingToExport, Unavailable, VersionNotFound

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A version, whether it can be used, and what has become of its edits.

    Attributes:
        outdated: The edits in its weights that are not in force as they were baked: retracted, expired or changed.
        serving: What is served.
        damage: What is wrong with its weights, in a sentence; None when they are whole.
    """

    version: Version
    outdated: tuple[Outdated, ...]
    serving: Serving
    damage: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A page of versions, and what is served."""

    page: VersionPage
    serving: Serving


async def read(services: Services, version_id: str) -> Shown:
    """The version of that id, its weights verified.

    Raises:
        VersionNotFound: There is none.
    """
    version = await _found(services, version_id)
    async with services.store.reading() as reading:
        now = await reading.edits.with_ids(tuple(edit.id for edit in version.edits))
        serving = await reading.serving.now()
    old = outdated(version.edits, [stored.edit for stored in now])
    damage = None
    if version.artifact is not None:
        try:
            await services.artifacts.verify(version.artifact, owner=version.id)
        except ArtifactDamaged as error:
            damage = error.detail
    return Shown(version=version, outdated=old, serving=serving, damage=damage)


async def page(services: Services, *, limit: int, after: str | None) -> Listed:
    """Versions older than the id `after`, newest first; v0, the base, is the last of all."""
    async with services.store.reading() as reading:
        found = await reading.versions.page(limit=limit, after=after)
        serving = await reading.serving.now()
    if not found.has_more and after != BASE_VERSION:
        room = len(found.data) < limit
        data = (*found.data, await _base(services)) if room else found.data
        found = VersionPage(data=data, has_more=not room)
    return Listed(page=found, serving=serving)


async def activate(
    services: Services,
    version_id: str,
    *,
    percent: int,
    reason: str | None,
    actor: str,
    receipt: ReceiptFor[Serving] | None = None,
) -> Serving:
    """Let a version answer so many percent of the questions; when this returns, it does so on this replica.

    It is loaded first, so that one that cannot be served is not activated.

    Raises:
        VersionNotFound: There is none of that id.
        VersionActive: The active version is to be its own canary.
        BaseMismatch: It was made for another base model than the one that is loaded.
        ArtifactDamaged: Its weights are missing or corrupted.
        Unavailable: They cannot be read now; or it is activated, and this replica could not install that yet.
        StorageFull: There is no room for a copy of them.
        AlreadyAnswered, IdempotencyKeyReused: By the claim of the receipt.
    """
    await _verified(services, version_id)

    async def plan(serving: ServingReader) -> Move | None:
        return activation(await serving.now(), version_id, percent)

    return await _make(services, plan, reason=reason, actor=actor, receipt=receipt)


async def roll_back(
    services: Services, *, reason: str | None, actor: str, receipt: ReceiptFor[Serving] | None = None
) -> Serving:
    """Undo the newest activation that still stands: see `service.domain.serving.rollback`.

    The version that answers afterwards is loaded first, as for `activate`.

    Raises:
        NothingToRollBack: No activation stands.
        And as `activate`.
    """
    return await _make(services, rollback, reason=reason, actor=actor, receipt=receipt)


class _Overtaken(Exception):
    """Another move was made since this one was planned."""


async def _make(
    services: Services,
    plan: Callable[[ServingReader], Awaitable[Move | None]],
    *,
    reason: str | None,
    actor: str,
    receipt: ReceiptFor[Serving] | None,
) -> Serving:
    """Prepare, commit and install a move, as it is planned under the write lock."""
    served: Serving | None = None
    while served is None:  # again, when another move was made meanwhile
        async with services.store.reading() as reading:
            now, move = await reading.serving.now(), await plan(reading.serving)
        if move is None:
            return now
        for version_id in set(move.to.answering) - set(now.answering):
            await _verified(services, version_id)
        with suppress(_Overtaken):
            async with services.store.writing(actor=actor, receipt=receipt) as writing:
                if await plan(writing.serving) != move:
                    raise _Overtaken
                served = await writing.serving.make(move, reason=reason)
                if receipt is not None:
                    receipt.settle(served)
    try:
        await services.runtime.catch_up()
    except Exception as error:
        _log.exception("committed but not yet installed", serving=served)
        raise Unavailable(
            f"{served.active} is activated, but this replica could not install that yet.",
            hint="Nothing need be sent again: it is installed as soon as the replica catches up (GET /readyz).",
        ) from error
    return served


async def _verified(services: Services, version_id: str) -> None:
    """Load a version, its file as it is now: what is loaded here already, others may still have to read."""
    if version_id == BASE_VERSION:
        return
    version = await _found(services, version_id)
    if version.artifact is not None:
        await services.artifacts.verify(version.artifact, owner=version_id)
        await services.runtime.load(version_id)


@asynccontextmanager
async def export(services: Services, version_id: str, kind: ExportFormat) -> AsyncIterator[Path]:
    """The folder of a version as others load it, for the length of the block.

    Raises:
        VersionNotFound: There is none of that id.
        NothingToExport: It is the base.
        BaseMismatch: It was made for another base model than the one that is loaded.
        ArtifactDamaged: Its weights are missing or corrupted.
        StorageFull: There is no room for the folder.
    """
    version = await _found(services, version_id)
    if version.artifact is None:
        raise NothingToExport(f"{version_id} is the base model, {version.base.name}.")
    if version.base.is_other_than(loaded := await services.baker.base()):
        raise BaseMismatch(
            f"{version_id} was made for {version.base.name} ({version.base.fingerprint[:12]}), and {loaded.name} "
            f"({loaded.fingerprint[:12]}) is loaded."
        )
    with tempfile.TemporaryDirectory(prefix="errata-") as folder:
        async with services.artifacts.fetch(version.artifact, owner=version.id) as file:
            await services.baker.export(version, file, kind, Path(folder))
        yield Path(folder)


async def collect(services: Services) -> None:
    """Remove artifacts that no version names and no bake is about to name, and what was left half written."""
    async with services.store.recording() as recording:
        removed = await services.artifacts.collect(*await recording.bakes.artifacts())
    if removed:
        _log.info("artifacts collected", removed=len(removed))


async def audit(services: Services) -> None:
    """Collect, then verify the weights of every version and log by name those that are damaged."""
    try:
        await collect(services)
        async with services.store.reading() as reading:
            artifacts = await reading.versions.artifacts()
        for version_id, artifact in artifacts:
            try:
                await services.artifacts.verify(artifact, owner=version_id)
            except ArtifactDamaged as error:
                _log.error("damaged version", version=version_id, detail=error.detail)
    except ErrataError as error:
        _log.warning("the versions could not be audited", detail=error.detail)


async def _found(services: Services, version_id: str) -> Version:
    if version_id == BASE_VERSION:
        return await _base(services)
    async with services.store.reading() as reading:
        version = await reading.versions.get(version_id)
    if version is None:
        raise VersionNotFound(f"There is no version {version_id}.")
    return version


async def _base(services: Services) -> Version:
    return Version(id=BASE_VERSION, base=await services.baker.base())
