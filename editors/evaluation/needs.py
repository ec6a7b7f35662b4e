"""What a metric needs to be told in a case, and what to say when no case tells it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editors.evaluation.cases import COMPOSED, EDIT, ENTAILED, PARAPHRASE, Case
from editors.evaluation.counterfact import is_neighbour, new_answer
from editors.evaluation.datasets.forms import NEIGHBOUR
from editors.evaluation.sentiment import is_of_mood


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a case may give.

    Attributes:
        field: Of the case.
        met: Whether a case gives it.
        words: What such a case does, to follow "No case".
    """

    field: str
    met: Callable[[Case], bool]
    words: str


def lacking(kinds: Sequence[Sequence[Need]], cases: Sequence[Case]) -> str | None:
    """What the cases lack, in a sentence; None when for each kind some case meets all its needs."""
    return next((sentence for needs in kinds if (sentence := _lacking(needs, cases)) is not None), None)


def _lacking(needs: Sequence[Need], cases: Sequence[Case]) -> str | None:
    unmet = next((need for need in needs if not any(need.met(case) for case in cases)), None)
    if unmet is not None:
        return f"No case {unmet.words}."
    if not any(all(need.met(case) for need in needs) for case in cases):
        return f"No case {' and also '.join(need.words for need in needs)}."
    return None


def _in_scope(*forms: str) -> Need:
    names = " or ".join(f"`{form}`" for form in forms)
    return Need(
        "in_scope",
        lambda case: any(probe.form in forms for probe in case.in_scope),
        f"has an in-scope probe of form {names}",
    )


IN_SCOPE = Need("in_scope", lambda case: bool(case.in_scope), "has an in-scope probe")
ANSWERABLE = Need(
    "in_scope",
    lambda case: bool(case.in_scope) and not is_of_mood(case),
    "has an in-scope probe with a right answer (edits of mood have none)",
)
OUT_OF_SCOPE = Need("out_of_scope", lambda case: bool(case.out_of_scope), "has an out-of-scope probe")
EDITED = _in_scope(EDIT)
PARAPHRASED = _in_scope(PARAPHRASE)
FOLLOWING = _in_scope(COMPOSED, ENTAILED)
NEIGHBOURS = Need(
    "out_of_scope",
    lambda case: any(is_neighbour(probe, case.previous) for probe in case.out_of_scope),
    f"has an out-of-scope probe of form `{NEIGHBOUR}`, of which `previous` is true",
)
NEW = Need(
    "edit",
    lambda case: new_answer(case) is not None,
    "gives the edit's new answer, by an edit with a target or an in-scope probe of form `edit`",
)
PREVIOUS = Need("previous", lambda case: case.previous is not None, "gives `previous`, the answer before the edit")
REPLIES = Need(
    "replies",
    lambda case: case.replies is not None and bool(case.replies.wished) and bool(case.replies.opposite),
    "gives `replies`, of the wished and of the opposite mood",
)
