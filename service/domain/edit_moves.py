"""The life of an edit: which state may follow which, and what a change asked for comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from service.domain.edits import Edit, EditState
from service.errors import IllegalMove

MOVES: Mapping[EditState, frozenset[EditState]] = {
    EditState.DRAFT: frozenset({EditState.ACTIVE, EditState.RETRACTED}),
    EditState.ACTIVE: frozenset({EditState.PAUSED, EditState.EXPIRED, EditState.RETRACTED}),
    EditState.PAUSED: frozenset({EditState.ACTIVE, EditState.EXPIRED, EditState.RETRACTED}),
    EditState.EXPIRED: frozenset({EditState.ACTIVE, EditState.PAUSED, EditState.RETRACTED}),
    EditState.RETRACTED: frozenset(),
}
"""From each state to those that may follow. Time alone moves an edit to `expired`."""
TIMED = frozenset({EditState.ACTIVE, EditState.PAUSED})
"""States that `expires_at` ends. A draft's time counts from when it is active."""


def moved(before: Edit, wanted: Edit, *, at: datetime) -> Edit:
    """The edit as a change leaves it: an expired one that is given another end is active again, unless it is paused.

    Args:
        before: The edit as it is.
        wanted: As the caller wants it, in the old state where no state was asked for.
        at: Now.

    Raises:
        IllegalMove: The state wanted may not follow, or the edit's time is over in it.
    """
    revived = before.state is wanted.state is EditState.EXPIRED and wanted.expires_at != before.expires_at
    after = replace(wanted, state=EditState.ACTIVE) if revived else wanted
    if after.state is not before.state and after.state not in MOVES[before.state]:
        raise IllegalMove(
            f"{before.id} is {before.state} and cannot become {after.state}.", extra={"state": before.state}
        )
    if after.state in TIMED and after.expires_at is not None and after.expires_at <= at:
        raise IllegalMove(
            f"{before.id} cannot be {after.state}: its time ended at {after.expires_at.isoformat()}.",
            hint="Send `expires_at` as well: a later time, or null for no end.",
            extra={"state": before.state},
        )
    return after
