"""Between edits as the domain knows them and the values in their rows."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Row

from service.domain.edits import AnswerMode, Descriptor, Edit, EditKind, EditState, Scope
from service.errors import EditNotFound


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


def fold(text: str) -> str:
    """Text as searches compare it: without case, and with one form for each composed character."""
    return unicodedata.normalize("NFC", text.casefold())


def searchable(descriptor: Descriptor) -> str:
    """What searches look into."""
    return fold(f"{descriptor.prompt}\n{descriptor.target}")


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
