"""Edits: submit, read, retract. Every change is prepared, committed, installed."""

from __future__ import annotations

import structlog

from service.actions.services import Services
from service.domain.changes import Change
from service.domain.edits import Edit, EditFilter, EditPage, EditState, NewEdit
from service.domain.ports import Writing
from service.domain.receipts import ReceiptFor
from service.errors import EditConflict, EditNotFound, PreconditionFailed, Unavailable

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
        replaced = await _superseded(writing, new)
        await _refuse_conflict(writing, new)
        edit = await writing.edits.add(new, embeddings)
        if replaced is not None:
            await writing.edits.retract(replaced.id, reason=new.reason, superseded_by=edit.id)
        if receipt is not None:
            receipt.settle(edit)
    try:
        await services.runtime.catch_up()
    except Exception:  # the edit is committed and the follower installs it later: saying otherwise would be false
        _log.exception("edit committed but not yet installed", edit_id=edit.id, revision=edit.revision)
    return edit


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
        edit = await writing.edits.get(edit_id)
        if edit is None or edit.state is EditState.RETRACTED:
            raise EditNotFound(f"There is no edit {edit_id}, or it has been retracted.")
        if revisions is not None and edit.revision not in revisions:
            raise PreconditionFailed(
                f'{edit_id} is at revision "{edit.revision}", which If-Match does not name.',
                extra={"revision": edit.revision},
            )
        await writing.edits.retract(edit_id, reason=reason)
    try:
        await services.runtime.catch_up()
    except Exception as error:
        _log.exception("retraction committed but not yet installed", edit_id=edit_id)
        raise Unavailable(
            f"{edit_id} is retracted, but this replica could not take it out of its memory yet.",
            hint="Nothing need be sent again: it is taken out as soon as the replica catches up (GET /readyz).",
        ) from error


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
    """Everything that happened to an edit, oldest first.

    Raises:
        EditNotFound: No edit ever had that id.
    """
    async with services.store.reading() as reading:
        if await reading.edits.get(edit_id) is None:
            raise EditNotFound(f"There is no edit {edit_id}.")
        return await reading.changes.of(edit_id)


async def _superseded(writing: Writing, new: NewEdit) -> Edit | None:
    """The edit that the new one replaces, if it names one."""
    if new.supersedes is None:
        return None
    edit = await writing.edits.get(new.supersedes)
    if edit is None or edit.state not in {EditState.ACTIVE, EditState.DRAFT}:
        raise EditNotFound(
            f"`supersedes` names {new.supersedes}, and no active or draft edit has that id.",
            extra={"edit_id": new.supersedes},
        )
    return edit


async def _refuse_conflict(writing: Writing, new: NewEdit) -> None:
    """Refuse a second active edit for one prompt; drafts answer nothing and so are in nobody's way."""
    if new.state is EditState.DRAFT:
        return
    other = await writing.edits.active_with_key(new.descriptor.key)
    if other is None or other.id == new.supersedes:
        return
    same = "the same" if other.descriptor.target == new.descriptor.target else "another"
    raise EditConflict(f"{other.id} already answers this prompt, with {same} target.", extra={"edit_id": other.id})
