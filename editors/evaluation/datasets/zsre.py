"""zsRE (Levy et al. 2017) as MEND edits it (Mitchell et al. 2022, ICLR, sec. 5 and app. C).

Two forms go about: MEND's own, with lists of alternatives and rephrases, and the one that ROME's authors made of it,
with one of each and a question of Natural Questions that has nothing to do with it.
"""

from __future__ import annotations

from typing import Any

from editors.edit import QuestionAnswer
from editors.evaluation.cases import EDIT, Case, InScope, OutOfScope
from editors.evaluation.datasets._files import Identifier, OptionalAnswer, Part, Text
from editors.evaluation.datasets.forms import LOCALITY

_NATURAL_QUESTION = "nq question: "
"""Begins `loc`: it told T5 which task it had, and is no part of the question."""


class _Own(Part):
    id: Identifier | None = None
    input: Text
    prediction: OptionalAnswer = None
    alternatives: tuple[OptionalAnswer, ...]
    filtered_rephrases: tuple[Text, ...] | None = None
    rephrases: tuple[Text, ...] = ()


class _Flat(Part):
    case_id: Identifier | None = None
    src: Text
    alt: OptionalAnswer
    pred: OptionalAnswer = None
    rephrase: Text | None = None
    subject: Text | None = None
    loc: Text | None = None
    loc_ans: OptionalAnswer = None


def read_case(fields: dict[str, Any], number: str) -> Case | None:
    """A record as a case; the edit's answer is the alternative to the prediction, as in MEND, not the true one.

    Returns:
        None for a record without an alternative, or of MEND's own form without a rephrase: its authors leave these out.

    Raises:
        pydantic.ValidationError: Fields are missing or malformed.
    """
    return _own(fields, number) if "input" in fields else _flat(fields, number)


def _own(fields: dict[str, Any], number: str) -> Case | None:
    record = _Own.model_validate(fields)
    rephrases = record.rephrases if record.filtered_rephrases is None else record.filtered_rephrases
    others = [text for text in rephrases if text != record.input]
    new = next(filter(None, record.alternatives), None)
    if new is None or not others:
        return None
    return Case(
        id=record.id or number,
        edit=QuestionAnswer(record.input, new),
        in_scope=(InScope(record.input, new, EDIT), *(InScope(text, new) for text in others)),
        previous=record.prediction,
    )


def _flat(fields: dict[str, Any], number: str) -> Case | None:
    record = _Flat.model_validate(fields)
    new = record.alt
    if new is None:
        return None
    rephrases = () if record.rephrase is None else (InScope(record.rephrase, new),)
    question = None if record.loc is None else record.loc.removeprefix(_NATURAL_QUESTION)
    return Case(
        id=record.case_id or number,
        edit=QuestionAnswer(record.src, new, record.subject),
        in_scope=(InScope(record.src, new, EDIT), *rephrases),
        out_of_scope=() if question is None else (OutOfScope(question, LOCALITY, record.loc_ans),),
        subject=record.subject,
        previous=record.pred,
    )
