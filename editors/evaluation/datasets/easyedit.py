"""EasyEdit's records (Wang et al. 2023) and KnowEdit's (Zhang et al. 2024, sec. 4), in their newer and older forms."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from editors.edit import QuestionAnswer
from editors.evaluation.cases import COMPOSED, EDIT, Case, InScope, OutOfScope
from editors.evaluation.datasets._files import Answer, Identifier, OptionalAnswer, Part, Text
from editors.evaluation.datasets.forms import LOCALITY


def _listed(value: object) -> object:
    """A list of texts, also where there is one text or none."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _rows(group: object) -> object:
    """Probes as rows {prompt, ground_truth}, also where the prompts and their answers stand in two lists or alone."""
    if group is None:
        return []
    if not (isinstance(group, dict) and "prompt" in group):
        return group
    if not isinstance(group["prompt"], list):
        return [group]
    prompts, answers = group["prompt"], group.get("ground_truth", [])
    if not isinstance(answers, list) or len(prompts) != len(answers):
        raise PydanticCustomError("uneven", "must have as many answers in `ground_truth` as prompts in `prompt`")
    return [{"prompt": prompt, "ground_truth": answer} for prompt, answer in zip(prompts, answers, strict=True)]


def _groups(value: object) -> object:
    """Groups of probes by name, also where there are none."""
    return {} if value is None else value


def _groups_or_question(value: object) -> object:
    """Groups of probes by name, also where there is the one question of the first release (Yao et al. 2023)."""
    if isinstance(value, dict) and "New Question" in value:
        return {"one hop": {"prompt": value["New Question"], "ground_truth": value.get("New Answer", "")}}
    return _groups(value)


class _Left(Part):
    prompt: Answer
    ground_truth: OptionalAnswer = None


class _Carried(Part):
    prompt: Answer
    ground_truth: Answer


_LeftGroup = Annotated[list[_Left], BeforeValidator(_rows)]
_CarriedGroup = Annotated[list[_Carried], BeforeValidator(_rows)]


class _Record(Part):
    case_id: Identifier | None = None
    prompt: Text
    target_new: Answer
    subject: Text | None = None
    ground_truth: OptionalAnswer = None
    rephrases: Annotated[list[Text], BeforeValidator(_listed)] = Field(
        [], validation_alias=AliasChoices("rephrase_prompt", "rephrase")
    )
    locality: Annotated[dict[str, _LeftGroup], BeforeValidator(_groups)] = Field({})
    portability: Annotated[dict[str, _CarriedGroup], BeforeValidator(_groups_or_question)] = Field({})
    locality_prompt: Text | None = None
    locality_ground_truth: OptionalAnswer = None


def read_case(fields: dict[str, Any], number: str) -> Case:
    """A record as a case: groups of portability are of form `composed`; of several accepted answers the first is taken.

    Raises:
        pydantic.ValidationError: Fields are missing or malformed.
    """
    record = _Record.model_validate(fields)
    new = record.target_new
    carried = [probe for group in record.portability.values() for probe in group]
    left = [(probe.prompt, probe.ground_truth) for group in record.locality.values() for probe in group]
    if record.locality_prompt is not None:
        left.append((record.locality_prompt, record.locality_ground_truth))
    return Case(
        id=record.case_id or number,
        edit=QuestionAnswer(record.prompt, new, record.subject),
        in_scope=(
            InScope(record.prompt, new, EDIT),
            *(InScope(text, new) for text in record.rephrases),
            *(InScope(probe.prompt, probe.ground_truth, COMPOSED) for probe in carried),
        ),
        out_of_scope=tuple(OutOfScope(prompt, LOCALITY, truth) for prompt, truth in left),
        subject=record.subject,
        previous=record.ground_truth,
    )
