"""Files of edits: import them all or none, export them as one moment has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from service.actions.services import Services
from service.domain.edits import Edit, EditFilter, EditState, Embeddings
from service.domain.imports import MOST_ERRORS, Imported, Line, conflicts_with, conflicts_within
from service.domain.ports import Reading, Writing
from service.domain.receipts import ReceiptFor
from service.errors import FieldError, ImportRefused

EXPORTED_AT_ONCE = 500

_log = structlog.get_logger(__name__)

Told = Callable[[int], None]
"""Told how many edits have been prepared."""


async def import_(
    services: Services,
    lines: Sequence[Line],
    bad: Sequence[FieldError],
    *,
    actor: str,
    receipt: ReceiptFor[Imported] | None = None,
) -> Callable[[Told], Awaitable[Imported]]:
    """Check the edits of a file; what this returns adds them.

    Raises:
        ImportRefused: A line was bad when it was read, an edit does not fit in the model's context, or one conflicts
            with another of the file or of the service. Nothing has been added.
    """
    within = await asyncio.to_thread(lambda: list(conflicts_within(lines)))
    async with services.store.reading() as reading:
        conflicts = await _conflicts(reading, lines)
    unfit = await services.runtime.unfit([line.new.descriptor for line in lines])
    overlong = [FieldError("", error.detail, line=lines[place].number) for place, error in unfit.items()]
    _refuse([*bad, *within, *conflicts, *overlong])
    return partial(_add, services, lines, actor, receipt)


async def _add(
    services: Services, lines: Sequence[Line], actor: str, receipt: ReceiptFor[Imported] | None, told: Told
) -> Imported:
    """Add them in the order of their lines, in one transaction, and serve them when this returns.

    Raises:
        ImportRefused: Meanwhile somebody has added an edit that conflicts with one of them.
        AlreadyAnswered, IdempotencyKeyReused: By the claim of the receipt.
    """
    embeddings: list[Embeddings] = []
    async for some in services.runtime.prepare_many([line.new.descriptor for line in lines]):
        embeddings += some
        told(len(embeddings))
    async with services.store.writing(actor=actor, receipt=receipt) as writing:
        _refuse(await _conflicts(writing, lines))  # others may have written since
        ids = await writing.edits.add_all([line.new for line in lines], embeddings)
        for line, edit_id in zip(lines, ids, strict=True):
            if line.new.supersedes is not None:
                await writing.edits.retract(line.new.supersedes, reason=line.new.reason, superseded_by=edit_id)
        imported = Imported(ids=ids, revision=await writing.changes.revision())
        if receipt is not None:
            receipt.settle(imported)
    try:
        await services.runtime.catch_up()
    except Exception:  # they are committed and the follower installs them later: saying otherwise would be false
        _log.exception("edits committed but not yet installed", edits=len(ids), revision=imported.revision)
    return imported


async def export(services: Services, wanted: EditFilter) -> AsyncGenerator[Edit, None]:
    """The edits that pass the filter, oldest first, all of one moment."""
    async with services.store.reading() as reading:
        after = None
        while True:
            page = await reading.edits.oldest(replace(wanted, limit=EXPORTED_AT_ONCE, after=after))
            for edit in page.data:
                yield edit
            if not page.has_more:
                return
            after = page.data[-1].id


async def _conflicts(opened: Reading | Writing, lines: Sequence[Line]) -> list[FieldError]:
    keys = [line.key for line in lines if line.new.state is EditState.ACTIVE]
    names = {line.new.supersedes for line in lines if line.new.supersedes is not None}
    in_force = await opened.edits.active_with_keys(keys)
    found = {name: await opened.edits.get(name) for name in names}
    left = {name: None if e is None or e.state is EditState.RETRACTED else e for name, e in found.items()}
    return list(conflicts_with(lines, in_force, left))


def _refuse(errors: Sequence[FieldError]) -> None:
    if not errors:
        return
    ordered = sorted(errors, key=lambda error: error.line or 0)
    bad_lines = len({error.line for error in errors})
    first = ordered[0]
    raise ImportRefused(
        f"{bad_lines:,} line{'s' if bad_lines > 1 else ''} cannot be imported; line {first.line}: {first.detail}.",
        errors=tuple(ordered[:MOST_ERRORS]),
        extra={"bad_lines": bad_lines},
    )
