"""Previews: what an edit would change, asked before it is kept."""

from __future__ import annotations

from dataclasses import dataclass

from service.domain.edits import Edit
from service.domain.generations import Generation

PREVIEW = "preview"
"""The id, in answers, of the edit that is previewed."""
MOST_PROBES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A probe's answers.

    Attributes:
        before: As `/generate` answers it now.
        after: As it would, with the edit in force.
        beta: Probability that it is in the edit's scope; None when other edits are nearer and this one is not asked.
    """

    prompt: str
    before: Generation
    after: Generation
    beta: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an edit would change.

    Attributes:
        conflict: The edit in force for the same prompt that the edit does not say it supersedes, if there is one. The
            answers after are those with the edit in its place.
        probes: In the order in which they were asked.
    """

    conflict: Edit | None
    probes: tuple[Probed, ...]
