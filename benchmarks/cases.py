"""Edits that weight editors are measured by, with probes in phrasings that the base never saw told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random

from demo.facts import Fact, load_world
from demo.suites import ANY_OTHER, SAME_RELATION, SAME_SUBJECT, drift
from editors.edit import QuestionAnswer
from editors.evaluation.cases import EDIT, Case, InScope, OutOfScope
from editors.evaluation.datasets.forms import NEIGHBOUR
from editors.method import EditRequest

UNTRAINED = "untrained phrasing"
"""Form of the in-scope probes in words that the base was not trained on."""
_PARAPHRASES = 3
_OF_A_FORM = 2
"""Most out-of-scope probes of one form in a case."""
_FEW_ANSWERS = 3
"""A relation with no more answers than this has nothing to draw another from."""


def drawn(count: int, *, seed: int) -> list[Case]:
    """Cases of the drift set: what has become of facts since 2018, often a name that the base never read."""
    unseen = {prompt for fact in load_world().facts for prompt in fact.held_out_prompts}
    return [
        replace(case, in_scope=tuple(replace(p, form=UNTRAINED) if p.prompt in unseen else p for p in case.in_scope))
        for case in Random(seed).sample(drift(), min(count, len(drift())))
    ]


def apart(count: int, draw: int, draws: int, *, to_known_names: bool) -> list[Case]:
    """Cases from all over the drift set, of which none is in two draws.

    Args:
        count: How many.
        draw: Which draw, from 0.
        draws: How many there are.
        to_known_names: Take those alone whose new answer the base has read.

    Raises:
        ValueError: There are not so many cases.
    """
    known = {fact.object for fact in load_world().facts}
    found = [case for case in drift() if not to_known_names or request_of(case).target in known]
    between = len(found) // count
    if not 0 <= draw < draws <= between:
        raise ValueError(f"{draws} draws of {count} cannot be had from {len(found)} cases")
    return found[draw * between // draws :: between][:count]


def counterfacts(count: int, *, seed: int) -> list[Case]:
    """Facts that are given another answer of their relation, as CounterFact does (Meng et al. 2022, sec. 3.3).

    Out of scope are facts of the same relation with the old answer (neighbours) and with others, facts of the same
    subject, and any others.
    """
    rng, world = Random(seed), load_world()
    enough = [fact for fact in world.facts if len(world.objects[fact.relation.name]) > _FEW_ANSWERS]
    return [_counterfact(fact, rng) for fact in rng.sample(enough, count)]


def request_of(case: Case) -> EditRequest:
    """The edit of a case.

    Raises:
        TypeError: It is no question with its answer.
    """
    if not isinstance(case.edit, QuestionAnswer):
        raise TypeError(f"{case.id} is not an edit by question and answer")
    return EditRequest(prompt=case.edit.prompt, target=case.edit.target, subject=case.edit.subject or case.subject)


def _counterfact(fact: Fact, rng: Random) -> Case:
    world, (own, *trained) = load_world(), fact.prompts
    target = rng.choice([answer for answer in world.objects[fact.relation.name] if answer != fact.object])
    of_relation = [other for other in _by_relation()[fact.relation.name] if other.subject != fact.subject]
    related = {
        NEIGHBOUR: [other for other in of_relation if other.object == fact.object],
        SAME_RELATION: [other for other in of_relation if other.object != fact.object],
        SAME_SUBJECT: [other for other in _by_subject()[fact.subject] if other.relation.name != fact.relation.name],
        ANY_OTHER: rng.sample(world.facts, _OF_A_FORM),
    }
    return Case(
        id=f"{fact.relation.name}/{fact.subject}",
        edit=QuestionAnswer(own, target, fact.subject),
        in_scope=(
            InScope(own, target, EDIT),
            *(InScope(prompt, target) for prompt in rng.sample(trained, min(_PARAPHRASES, len(trained)))),
            *(InScope(prompt, target, UNTRAINED) for prompt in fact.held_out_prompts),
        ),
        out_of_scope=tuple(
            OutOfScope(rng.choice(other.prompts), form, other.object)
            for form, others in related.items()
            for other in rng.sample(others, min(_OF_A_FORM, len(others)))
        ),
        subject=fact.subject,
        previous=fact.object,
    )


@cache
def _by_relation() -> dict[str, list[Fact]]:
    return _grouped([(fact.relation.name, fact) for fact in load_world().facts])


@cache
def _by_subject() -> dict[str, list[Fact]]:
    return _grouped([(fact.subject, fact) for fact in load_world().facts])


def _grouped(named: Sequence[tuple[str, Fact]]) -> dict[str, list[Fact]]:
    groups: dict[str, list[Fact]] = {}
    for name, fact in named:
        groups.setdefault(name, []).append(fact)
    return groups
