"""Edits: submit, read, change, retract. Every change is prepared, committed, installed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from service.actions import expiries
from service.actions.services import Services
from service.domain.changes import Change
from service.domain.edit_moves import moved
from service.domain.edits import Descriptor, Edit, EditFilter, EditPage, EditState, Embeddings, NewEdit
from service.domain.ports import Reading, Writing
from service.domain.receipts import ReceiptFor
from service.errors import EditConflict, EditNotFound, FieldError, Invalid, PreconditionFailed, Unavailable

_LATER = "Nothing need be sent again: it is done as soon as the replica catches up (GET /readyz)."

_log = structlog.get_logger(__name__)


async def submit(services: Services, new: NewEdit, *, actor: str, receipt: ReceiptFor[Edit] | None = None) -> Edit:
    """Add an edit; when this returns, this replica answers with it (unless it is a draft).

    Raises:
        EditTooLong: It does not fit in the model's context.
        EditConflict: Another active edit settles the same prompt.
        EditNotFound: The edit to supersede is not there.
        AlreadyAnswered, IdempotencyKeyReused: By the claim of the receipt.
    """
    embeddings = await services.runtime.prepare(new.descriptor)
    async with services.store.writing(actor=actor, receipt=receipt) as writing:
        replaced = None if new.supersedes is None else await replaceable(writing, new.supersedes)
        if new.state is EditState.ACTIVE:
            await _refuse_conflict(writing, new.descriptor, apart_from=(new.supersedes,))
        edit = await writing.edits.add(new, embeddings)
        if replaced is not None:
            await writing.edits.retract(replaced.id, reason=new.reason, superseded_by=edit.id)
        if receipt is not None:
            receipt.settle(edit)
    await _install(services, edit.id)
    return edit


async def change(
    services: Services,
    edit_id: str,
    amend: Callable[[Edit], Edit],
    *,
    revisions: frozenset[int] | None,
    reason: str | None,
    actor: str,
) -> Edit:
    """Keep an edit as `amend` makes it; when this returns, this replica answers accordingly.

    Where that supersedes another edit than before, the other is retracted in the same transaction. What changes nothing
    leaves no trace.

    `amend` leads from the edit as it is to the edit as it is wanted; it may refuse, and may be asked again. With
    `revisions`, only an edit at one of these is changed.

    Raises:
        Invalid: It would supersede itself, or another without being active.
        EditNotFound: Unknown or retracted, or the edit to supersede is not there.
        PreconditionFailed: The edit is at another revision.
        IllegalMove: The state wanted may not follow on the edit's.
        EditTooLong: It does not fit in the model's context any more.
        EditConflict: Another active edit settles the same prompt.
        Unavailable: The change is made for good, and this replica could not install it yet.
    """
    while True:
        async with services.store.reading() as reading:
            found = await _changeable(reading, edit_id, revisions)
        wanted = _moved(found, amend)
        prepared = wanted.descriptor
        embeddings = None if prepared == found.descriptor else await services.runtime.prepare(prepared)
        async with services.store.writing(actor=actor) as writing:
            before = await _changeable(writing, edit_id, revisions)
            after = _moved(before, amend)
            if after == before:
                return before
            same_texts = after.descriptor == before.descriptor
            if not same_texts and (embeddings is None or after.descriptor != prepared):
                continue  # it was changed while its texts were prepared
            changed = await _commit(writing, before, after, None if same_texts else embeddings, reason)
        answered = before.state is EditState.ACTIVE
        late = "is changed, but this replica still answers by it as it was." if answered else None
        await _install(services, edit_id, late=late)
        return changed


async def retract(
    services: Services, edit_id: str, *, revisions: frozenset[int] | None, reason: str | None, actor: str
) -> None:
    """End an edit's life; when this returns, this replica no longer answers with it. Its history stays.

    With `revisions`, only an edit at one of these is retracted.

    Raises:
        EditNotFound: Unknown, or retracted before.
        PreconditionFailed: The edit is at another revision.
        Unavailable: The edit is retracted for good, and this replica could not take it out of its memory yet.
    """
    async with services.store.writing(actor=actor) as writing:
        await _changeable(writing, edit_id, revisions)
        await writing.edits.retract(edit_id, reason=reason)
    await _install(services, edit_id, late="is retracted, but this replica could not take it out of its memory yet.")


async def read(services: Services, edit_id: str) -> Edit:
    """The edit of that id, in whatever state.

    Raises:
        EditNotFound: No edit ever had that id.
    """
    async with services.store.reading() as reading:
        edit = await reading.edits.get(edit_id)
    if edit is None:
        raise EditNotFound(f"There is no edit {edit_id}.")
    return edit


async def page(services: Services, wanted: EditFilter) -> EditPage:
    """The edits that pass the filter, newest first."""
    async with services.store.reading() as reading:
        return await reading.edits.page(wanted)


async def history(services: Services, edit_id: str) -> tuple[Change, ...]:
    """Everything that happened to an edit, oldest first; that it expired as well, from that moment on.

    Raises:
        EditNotFound: No edit ever had that id.
    """
    await expiries.record(services)
    async with services.store.reading() as reading:
        if await reading.edits.get(edit_id) is None:
            raise EditNotFound(f"There is no edit {edit_id}.")
        return await reading.changes.of(edit_id)


async def replaceable(opened: Reading | Writing, edit_id: str) -> Edit:
    """The edit that another is to replace.

    Raises:
        EditNotFound: There is none of that id, or it has been retracted; what replaced it is named.
    """
    edit = await opened.edits.get(edit_id)
    if edit is not None and edit.state is not EditState.RETRACTED:
        return edit
    latest = edit
    while latest is not None and latest.superseded_by is not None:
        latest = await opened.edits.get(latest.superseded_by)
    by = "" if latest is None or latest.id == edit_id else f" It was superseded, in the end by {latest.id}."
    raise EditNotFound(
        f"`supersedes` names {edit_id}, and no edit has that id that is not retracted.{by}", extra={"edit_id": edit_id}
    )


async def in_the_way(
    opened: Reading | Writing, descriptor: Descriptor, *, apart_from: tuple[str | None, ...]
) -> Edit | None:
    """The active edit that settles a prompt already, unless it is left out; what is not active is in nobody's way."""
    other = await opened.edits.active_with_key(descriptor.key)
    return None if other is None or other.id in apart_from else other


async def _refuse_conflict(writing: Writing, descriptor: Descriptor, *, apart_from: tuple[str | None, ...]) -> None:
    other = await in_the_way(writing, descriptor, apart_from=apart_from)
    if other is not None:
        same = "the same" if other.descriptor.target == descriptor.target else "another"
        raise EditConflict(f"{other.id} already answers this prompt, with {same} target.", extra={"edit_id": other.id})


async def _changeable(opened: Reading | Writing, edit_id: str, revisions: frozenset[int] | None) -> Edit:
    """The edit, if it can still change and is at one of these revisions."""
    edit = await opened.edits.get(edit_id)
    if edit is None or edit.state is EditState.RETRACTED:
        raise EditNotFound(f"There is no edit {edit_id}, or it has been retracted.")
    if revisions is not None and edit.revision not in revisions:
        raise PreconditionFailed(
            f'{edit_id} is at revision "{edit.revision}", which If-Match does not name.',
            extra={"revision": edit.revision},
        )
    return edit


async def _install(services: Services, edit_id: str, *, late: str | None = None) -> None:
    """Bring a committed change into force here.

    When that fails, the follower does it later, and whoever wrote has nothing to send again; `late` is told where an
    answer could still be given that the change has ended.

    Raises:
        Unavailable: It failed, and `late` says what that means.
    """
    try:
        await services.runtime.catch_up()
    except Exception as error:
        _log.exception("change committed but not yet installed", edit_id=edit_id)
        if late is not None:
            raise Unavailable(f"{edit_id} {late}", hint=_LATER) from error


def _moved(before: Edit, amend: Callable[[Edit], Edit]) -> Edit:
    return moved(before, amend(before), at=datetime.now(UTC))


async def _commit(
    writing: Writing, before: Edit, after: Edit, embeddings: Embeddings | None, reason: str | None
) -> Edit:
    """Write a change, and retract the edit that it newly supersedes."""
    replaces = after.supersedes if after.supersedes != before.supersedes else None
    if replaces is not None and (after.state is not EditState.ACTIVE or replaces == before.id):
        raise Invalid(
            f"{before.id}, {after.state}, cannot supersede {replaces}.",
            hint="An edit supersedes another, and answers in its place: make it active as well.",
            errors=(FieldError("/supersedes", "must be another edit, which an active one replaces"),),
        )
    replaced = None if replaces is None else await replaceable(writing, replaces)
    if after.state is EditState.ACTIVE:
        await _refuse_conflict(writing, after.descriptor, apart_from=(before.id, replaces))
    changed = await writing.edits.change(before, after, embeddings=embeddings, reason=reason)
    if replaced is not None:
        await writing.edits.retract(replaced.id, reason=reason, superseded_by=before.id)
    return changed
