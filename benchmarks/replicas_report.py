"""What two replicas did, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

CLIENTS = 16
MOST_MS = 500
"""What is required of the 95th percentile of an edit's way to another replica."""
MOST_REVOCATION_MS = 1000


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it; times in milliseconds.

    Attributes:
        redis: Absent, present, or killed in the middle.
        posted: From the answer that acknowledges an edit to the first answer by it on the other replica.
        retracted: Likewise, to the first answer that is no longer by it.
        trials: Reads with `min_revision`.
        prompts: That clients contested.
        revoked: From the revocation of a key to its being refused by both replicas.
        wrong: What should not be, in words.
    """

    redis: str
    posted: list[float] = field(default_factory=list)
    retracted: list[float] = field(default_factory=list)
    trials: int = 0
    prompts: int = 0
    revoked: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def render(outcomes: Sequence[Outcome]) -> list[str]:
    """The table."""
    said = (
        "Two API processes on one PostgreSQL, beside each other on this machine. An edit is posted on one and asked "
        f"for on the other until that answers by it: {MOST_MS} ms are required at the 95th percentile. `min_revision`: "
        "an edit is changed on one, and the other asked at once for at least that revision. Contested: "
        f"{CLIENTS} clients post another answer to one prompt at once, half of them on each replica; one is to win, "
        "and all others are to be told who did. Revoked: until neither takes the key, for which "
        f"{MOST_REVOCATION_MS:,} ms are required. Wrong is an older answer, two winners or none, a history that "
        "differs from the log, or an index that holds other edits than the database."
    )
    columns = (
        "Redis, edits, posted (median ms), 95th percentile, retracted (median ms), 95th percentile, "
        "`min_revision` trials, prompts contested, keys revoked, the slowest (ms), found wrong"
    )
    return [
        said,
        "",
        f"| {columns.replace(', ', ' | ')} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {one.redis} | {len(one.posted)} | {statistics.median(one.posted):.0f} | {_late(one.posted):.0f} | "
            f"{statistics.median(one.retracted):.0f} | {_late(one.retracted):.0f} | {one.trials:,} | {one.prompts} | "
            f"{len(one.revoked)} | {max(one.revoked):.0f} | {len(one.wrong)} |"
            for one in outcomes
        ),
        *(f"- {said}" for one in outcomes for said in one.wrong),
    ]


def _late(milliseconds: Sequence[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(milliseconds, n=20, method="inclusive")[-1]
