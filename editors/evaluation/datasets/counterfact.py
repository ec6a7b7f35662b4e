"""CounterFact (Meng et al. 2022, sec. 3.3 and app. D): the authors' records, and EasyEdit's flattened ones."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from editors.edit import QuestionAnswer
from editors.evaluation.cases import EDIT, Case, InScope, OutOfScope
from editors.evaluation.datasets._files import Identifier, Part, Text
from editors.evaluation.datasets.forms import NEIGHBOUR

_BLANK = "{}"


def _with_blank(template: str) -> str:
    if _BLANK not in template:
        raise PydanticCustomError("no_blank", "must have a pair of braces where the subject goes")
    return template


class _Target(Part):
    text: Text = Field(alias="str")


class _Rewrite(Part):
    prompt: Annotated[Text, AfterValidator(_with_blank)]
    subject: Text
    target_new: _Target
    target_true: _Target


class _Nested(Part):
    case_id: Identifier | None = None
    requested_rewrite: _Rewrite
    paraphrase_prompts: tuple[Text, ...] = ()
    neighborhood_prompts: tuple[Text, ...] = ()


class _Flat(Part):
    case_id: Identifier | None = None
    prompt: Text
    subject: Text
    target_new: Text
    ground_truth: Text
    rephrase_prompt: Text
    locality_prompt: Text
    locality_ground_truth: Text


def read_case(fields: dict[str, Any], number: str) -> Case:
    """A record as a case: paraphrases are in scope; neighbours, of which the answer before is true, are not.

    Raises:
        pydantic.ValidationError: Fields are missing or malformed.
    """
    return _nested(fields, number) if "requested_rewrite" in fields else _flat(fields, number)


def _nested(fields: dict[str, Any], number: str) -> Case:
    record = _Nested.model_validate(fields)
    rewrite = record.requested_rewrite
    prompt = rewrite.prompt.replace(_BLANK, rewrite.subject)
    new, true = rewrite.target_new.text, rewrite.target_true.text
    return Case(
        id=record.case_id or number,
        edit=QuestionAnswer(prompt, new, rewrite.subject),
        in_scope=(InScope(prompt, new, EDIT), *(InScope(text, new) for text in record.paraphrase_prompts)),
        out_of_scope=tuple(OutOfScope(text, NEIGHBOUR, true) for text in record.neighborhood_prompts),
        subject=rewrite.subject,
        previous=true,
    )


def _flat(fields: dict[str, Any], number: str) -> Case:
    record = _Flat.model_validate(fields)
    new = record.target_new
    return Case(
        id=record.case_id or number,
        edit=QuestionAnswer(record.prompt, new, record.subject),
        in_scope=(InScope(record.prompt, new, EDIT), InScope(record.rephrase_prompt, new)),
        out_of_scope=(OutOfScope(record.locality_prompt, NEIGHBOUR, record.locality_ground_truth),),
        subject=record.subject,
        previous=record.ground_truth,
    )
