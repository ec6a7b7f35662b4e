"""Between edits as the domain knows them and the values in their rows."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Row

from service.domain.edits import AnswerMode, Descriptor, Edit, EditKind, EditState, NewEdit, Scope
from service.errors import EditNotFound
from service.store._search import searchable


def number_of(edit_id: str) -> int | None:
    """17 for `e17`; None for what cannot be an id."""
    match = re.fullmatch(r"e([1-9][0-9]{0,17})", edit_id)
    return int(match[1]) if match else None


def known_number(edit_id: str) -> int:
    """17 for `e17`.

    Raises:
        EditNotFound: It cannot be an id.
    """
    number = number_of(edit_id)
    if number is None:
        raise EditNotFound(f"There is no edit {edit_id}.")
    return number


def digest(key: str) -> bytes:
    """A descriptor's key as it is stored: SHA-256, 32 bytes."""
    return sha256(key.encode()).digest()


def columns(edit: Edit | NewEdit) -> dict[str, Any]:
    """What its row says of an edit, but for its place in time and its embeddings."""
    return {
        "kind": edit.descriptor.kind.value,
        "state": edit.state.value,
        "key": digest(edit.descriptor.key),
        "descriptor": asdict(edit.descriptor),
        "search": searchable(edit.descriptor),
        "expires_at": edit.expires_at,
        "reason": edit.reason,
        "tags": list(edit.tags),
        "supersedes": None if edit.supersedes is None else known_number(edit.supersedes),
    }


def differences(before: Edit, after: Edit) -> dict[str, Any]:
    """What a change changes, for the log: the fields that differ, as they were and as they are."""
    old, new = _facts(before), _facts(after)
    differing = [name for name in old if old[name] != new[name]]
    return {"from": {name: old[name] for name in differing}, "to": {name: new[name] for name in differing}}


def expiry_recorded(row: Row[Any]) -> dict[str, Any]:
    """The end of an edit's time, for the log."""
    return {"previous_state": row.previous_state, "expires_at": _written(row.expires_at)}


def edit_of(row: Row[Any]) -> Edit:
    """The edit in a row."""
    return Edit(
        id=f"e{row.id}",
        revision=row.revision,
        descriptor=_descriptor(row.descriptor),
        state=EditState(row.state),
        created_at=row.created_at.astimezone(UTC),
        updated_at=row.updated_at.astimezone(UTC),
        expires_at=_utc(row.expires_at),
        reason=row.reason,
        tags=tuple(row.tags),
        supersedes=_id(row.supersedes),
        superseded_by=_id(row.superseded_by),
    )


def _facts(edit: Edit) -> dict[str, Any]:
    """What can be changed of an edit, as JSON."""
    return asdict(edit.descriptor) | {
        "state": edit.state,
        "expires_at": None if edit.expires_at is None else _written(edit.expires_at),
        "reason": edit.reason,
        "tags": list(edit.tags),
        "supersedes": edit.supersedes,
    }


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _id(number: int | None) -> str | None:
    return None if number is None else f"e{number}"


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)


def _descriptor(fields: dict[str, Any]) -> Descriptor:
    scope = fields["scope"]
    return Descriptor(
        kind=EditKind(fields["kind"]),
        prompt=fields["prompt"],
        target=fields["target"],
        subject=fields["subject"],
        scope=Scope(
            in_scope=tuple(scope["in_scope"]), out_of_scope=tuple(scope["out_of_scope"]), threshold=scope["threshold"]
        ),
        answer=AnswerMode(fields["answer"]),
    )
