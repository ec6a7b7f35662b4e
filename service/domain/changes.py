"""The change log: one append-only, totally ordered list of everything that can alter an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class ChangeKind(StrEnum):
    """What happened."""

    EDIT_ADDED = "edit.added"
    EDIT_CHANGED = "edit.changed"
    EDIT_EXPIRED = "edit.expired"
    EDIT_RETRACTED = "edit.retracted"
    EDIT_SUPERSEDED = "edit.superseded"
    VERSION_ADDED = "version.added"
    VERSION_ACTIVATED = "version.activated"
    VERSION_ROLLED_BACK = "version.rolled_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of the log.

    Attributes:
        revision: Its place; revision order is commit order.
        subject_id: The edit or the version it is about.
        actor: Who asked for it.
        payload: What changed, as JSON.
    """

    revision: int
    kind: ChangeKind
    subject_id: str
    actor: str
    at: datetime
    reason: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)


class ChangeReader(Protocol):
    """Reads the log within one transaction."""

    async def revision(self) -> int:
        """The number of the newest committed change; 0 before the first."""
        ...

    async def since(self, revision: int, *, limit: int) -> tuple[Change, ...]:
        """The changes after `revision`, oldest first."""
        ...

    async def of(self, subject_id: str) -> tuple[Change, ...]:
        """The changes of one subject, oldest first."""
        ...
