"""Matches: which edit a prompt falls under, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from service.domain.versions import BASE_VERSION


class Decision(StrEnum):
    """What was decided for a prompt, and why."""

    IN_SCOPE = "in_scope"
    """An edit answers: its beta reaches its threshold."""
    BELOW_THRESHOLD = "below_threshold"
    """Edits were near, and none near enough."""
    EXCLUDED = "excluded"
    """The nearest edit names an out-of-scope example that is nearer."""
    NO_EDITS = "no_edits"
    """The memory is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An edit that was considered, best first.

    Attributes:
        similarity: Cosine between the prompt and the nearest in-scope text of the edit.
        beta: Probability that the prompt is in its scope, in [0, 1].
        threshold: Beta at or above which it answers.
        matched_text: That nearest text.
        excluded: Whether an out-of-scope example of the edit is nearer still.
    """

    edit_id: str
    beta: float
    threshold: float
    similarity: float
    matched_text: str
    excluded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The decision for one prompt. `beta` and `threshold` are the best candidate's; None when there is none.

    Attributes:
        revision: Of the memory that decided.
        version: Whose edits were left to its weights.
    """

    edit_id: str | None
    beta: float | None
    threshold: float | None
    decision: Decision
    candidates: tuple[Candidate, ...]
    revision: int
    version: str = BASE_VERSION
