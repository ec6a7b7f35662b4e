"""ROME's scores on CounterFact, probe by probe (Meng et al. 2022, sec. 3.3; averaged as in the authors' code).

They set the edit's new answer o* against the one before, o_c; in scope, and on neighbours: prompts on other subjects in
the same relation, of which o_c is true. The authors average within a case first and then over cases, so that each case
counts once however many probes it has.
"""

from __future__ import annotations

from math import exp

import numpy as np
from numpy.typing import NDArray

from editors.edit import Claim, QuestionAnswer
from editors.evaluation.cases import EDIT, Case, OutOfScope
from editors.evaluation.datasets.forms import NEIGHBOUR
from editors.evaluation.records import GENERATED, Mode, Record
from editors.evaluation.subject import Scored
from editors.evaluation.text import answers, exact_match


def new_answer(case: Case) -> str | None:
    """The edit's new answer, o*: a question's target, a claim's label, or else the first `edit` probe's target."""
    match case.edit:
        case QuestionAnswer(target=target):
            return target
        case Claim(label=label):
            return str(label)
    return next((probe.target for probe in case.in_scope if probe.form == EDIT), None)


def is_neighbour(probe: OutOfScope | Record, previous: str | None) -> bool:
    """Whether an out-of-scope probe is a neighbour: of that form, and true of it, where the data says, is o_c."""
    if probe.form != NEIGHBOUR or previous is None:
        return False
    return probe.target is None or exact_match(probe.target, previous)


def preferred(record: Record, mode: Mode) -> bool | None:
    """Whether the right one of o* and o_c won: in scope P[o*] > P[o_c]; on neighbours P[o_c] > P[o*].

    The mean is the efficacy score ES, the paraphrase score PS or the neighbourhood score NS, by the kind of probe.
    The paper compares probabilities alone. Generated, the text must give the right one as its answer, which is harder:
    any third answer loses.

    Returns:
        None where a text or a probability is missing, and out of scope where the probe is no neighbour.
    """
    if mode == GENERATED:
        right = record.target if record.in_scope else record.previous
        if record.after is None or record.previous is None or right is None or not _is_judged(record):
            return None
        return answers(record.after, right)
    difference = lead(record)
    return None if difference is None else difference > 0


def lead(record: Record) -> float | None:
    """How much likelier the right one of o* and o_c is: P[o*] - P[o_c] in scope, P[o_c] - P[o*] on neighbours.

    The mean, in [-1, 1], is the efficacy, paraphrase or neighbourhood magnitude (EM, PM, NM).

    Returns:
        None where a probability is missing, and out of scope where the probe is no neighbour.
    """
    new = record.target_after if record.in_scope else record.new_after
    if new is None or record.previous_after is None or not _is_judged(record):
        return None
    difference = probability(new) - probability(record.previous_after)
    return difference if record.in_scope else -difference


def _is_judged(record: Record) -> bool:
    return record.in_scope or is_neighbour(record, record.previous)


def probability(scored: Scored) -> float:
    """P[o]: the geometric mean of its tokens' probabilities, so that longer answers are not less likely."""
    return exp(scored.mean)


def harmonic_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """ROME's S over the scores of each row, [n, scores] -> [n]; 0 where one of them is."""
    smallest = scores.min(axis=1)
    inverse: NDArray[np.float64] = np.reciprocal(scores[smallest > 0]).mean(axis=1)
    found = np.zeros(len(scores))
    found[smallest > 0] = 1 / inverse
    return found
