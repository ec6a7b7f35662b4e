"""Groups of edits that are in force together while an editor is trained or measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from editors.edit import QuestionAnswer
from editors.evaluation.cases import Case
from editors.method import EditRequest
from editors.methods.mend.config import MendRecipe

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """Edits in force together, and what judges them.

    Attributes:
        requests: The edits.
        in_scope: Prompts with the targets that the edits give them, the edits' own among them.
        out_of_scope: Prompts that the edits should leave alone, with their answers where known.
    """

    requests: tuple[EditRequest, ...]
    in_scope: tuple[tuple[str, str], ...]
    out_of_scope: tuple[tuple[str, str | None], ...]


def split(cases: Iterable[Case], validation_share: float) -> tuple[list[Case], list[Case]]:
    """Cases that can be trained on, and those to measure with; a case's side depends on its subject alone."""
    train: list[Case] = []
    validation: list[Case] = []
    for case in cases:
        if isinstance(case.edit, QuestionAnswer) and case.out_of_scope:
            digest = hashlib.sha256(_about(case).encode()).digest()
            (validation if int.from_bytes(digest[:6]) < validation_share * 2**48 else train).append(case)
    return train, validation


def drawn_groups(cases: Sequence[Case], recipe: MendRecipe, step: int) -> list[Group]:
    """The groups of one training step, by a generator seeded by its number: all of one size, about different things."""
    rng = Random(f"{recipe.seed}/{step}")
    size = round(math.exp(rng.uniform(0, math.log(recipe.edits_at_once))))
    count = max(1, recipe.edits_per_step // size)
    drawn = _different(rng.sample(cases, min(len(cases), 2 * size * count)))[: size * count]
    return [_group(drawn[i : i + size], rng, recipe.paraphrases, recipe.kept) for i in range(0, len(drawn), size)]


def whole_groups(cases: Sequence[Case], size: int) -> Iterator[Group]:
    """The cases with all their probes, so many at a time, those about different things."""
    different = _different(cases)
    for i in range(0, len(different), size):
        yield _group(different[i : i + size], Random(i), None, None)


def _group(cases: Sequence[Case], rng: Random, paraphrases: int | None, kept: int | None) -> Group:
    """The cases as a group, with so many drawn probes of each, or all."""
    requests: list[EditRequest] = []
    in_scope: list[tuple[str, str]] = []
    out_of_scope: list[tuple[str, str | None]] = []
    subjects = {case.subject for case in cases if case.subject}
    for case in cases:
        edit = case.edit
        assert isinstance(edit, QuestionAnswer), "split lets no others pass"
        requests.append(EditRequest(prompt=edit.prompt, target=edit.target, subject=case.subject))
        others = [(probe.prompt, probe.target) for probe in case.in_scope if probe.prompt != edit.prompt]
        in_scope += [(edit.prompt, edit.target), *_drawn(others, paraphrases, rng)]
        own = [(probe.prompt, probe.target) for probe in case.out_of_scope]
        edited_too = subjects - {case.subject}
        staying = [probe for probe in own if not any(subject in probe[0] for subject in edited_too)]
        out_of_scope += _drawn(staying or own, kept, rng)
    return Group(tuple(requests), tuple(in_scope), tuple(out_of_scope))


def _drawn(things: Sequence[T], count: int | None, rng: Random) -> Sequence[T]:
    return things if count is None else rng.sample(things, min(count, len(things)))


def _different(cases: Sequence[Case]) -> list[Case]:
    """The first case about each thing."""
    return list({_about(case): case for case in reversed(cases)}.values())[::-1]


def _about(case: Case) -> str:
    assert isinstance(case.edit, QuestionAnswer), "only these are edits by question and answer"
    return case.subject or case.edit.prompt
