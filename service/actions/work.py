"""What the work of jobs has in common: notes of progress, and words for why it failed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog

from service.domain.ports import Recording, Store
from service.errors import ErrataError, StoreUnavailable

SECONDS_BETWEEN_NOTES = 1.0
"""Least time between two notes of progress, so that progress costs nothing."""

_log = structlog.get_logger(__name__)


class Notes:
    """Notes of one piece of work's progress in the store, now and then; each answers whether to go on.

    Args:
        store: Where they are made.
        kind: Of the work, such as `evaluation`.
        subject_id: Its id.
    """

    def __init__(self, store: Store, kind: str, subject_id: str) -> None:
        self._store = store
        self._subject = {f"{kind}_id": subject_id}
        self._next = 0.0

    async def make(self, note: Callable[[Recording], Awaitable[bool]], *, at_once: bool = False) -> bool:
        """Make a note if it is time to, or in any case; True without one."""
        now = time.monotonic()
        if now < self._next and not at_once:
            return True
        self._next = now + SECONDS_BETWEEN_NOTES
        try:
            async with self._store.recording() as recording:
                return await note(recording)
        except StoreUnavailable as error:  # the work need not suffer from a database that is away for a moment
            _log.warning("progress was not noted", detail=error.detail, **self._subject)
            return True


def failed(kind: str, subject_id: str, error: Exception) -> str:
    """Log why a piece of work failed, and say it to whoever asked for the work."""
    subject = {f"{kind}_id": subject_id}
    if isinstance(error, ErrataError):
        _log.warning(f"{kind} failed", problem=error.slug, detail=error.detail, **subject)
        return f"{error.detail} {error.hint}".strip()
    _log.error(f"{kind} failed", exc_info=error, **subject)
    return f"Something unexpected went wrong. The log holds the details under {subject_id}; please report it."
