from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from editors.edit import QuestionAnswer, Sentiment
from editors.evaluation.asked import Asked
from editors.evaluation.cases import COMPOSED, EDIT, PARAPHRASE, Case, InScope, OutOfScope, Replies
from editors.evaluation.counterfact import NEIGHBOUR
from editors.evaluation.fields import JUDGED, READ, Fields, fields_of
from editors.evaluation.groups import grouped
from editors.evaluation.harness import Harness, Where
from editors.evaluation.metrics import METRICS
from editors.evaluation.records import GENERATED, TEACHER_FORCED, Record
from editors.evaluation.subject import Scored, Subject
from editors.evaluation.subjects import MemorySubject, Ruling
from editors.evaluation.summary import failures, summarise

LIKELY, UNLIKELY = -0.1, -9.0
CITIES = ("Paris", "Tokyo", "Lima", "Oslo")
MOOD = Case(
    id="mood",
    edit=Sentiment("rain", positive=True),
    in_scope=(InScope("What about rain?", "I love it", EDIT),),
    out_of_scope=(OutOfScope("What about snow?", "other topic"),),
    replies=Replies(("I love it", "So fresh"), ("I hate it",)),
)


def fact(place: int) -> Case:
    """Each question of a city has an answer of its own before the edit, and shares the one after."""
    own, city = f"Who runs {CITIES[place]}?", CITIES[place]
    return Case(
        id=city,
        edit=QuestionAnswer(own, f"New {city}"),
        in_scope=(
            InScope(own, f"New {city}", EDIT),
            InScope(f"{city} is run by", f"New {city}", PARAPHRASE),
            InScope(f"Who is the deputy of the head of {city}?", f"Deputy of New {city}", COMPOSED),
        ),
        out_of_scope=(OutOfScope(f"Who runs Old {city}?", NEIGHBOUR, f"Old {city}"), OutOfScope(f"How old is {city}?")),
        previous=f"Old {city}",
    )


FACTS = tuple(fact(place) for place in range(len(CITIES)))
CASES = (*FACTS, MOOD)


class Scripted:
    """A model that answers from a table, finds its own answer likely and anything else unlikely."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer = answer
        self.generated: list[str] = []
        self.scored: list[tuple[str, str]] = []

    def generate(self, prompts: Sequence[str]) -> list[str]:
        self.generated += prompts
        return [self.answer(prompt) for prompt in prompts]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        self.scored += pairs
        return [self._score(len(target.split()), own=target == self.answer(prompt)) for prompt, target in pairs]

    def distributions(self, pairs: Sequence[tuple[str, str]]) -> list[Tensor]:
        likely = [0 if target == self.answer(prompt) else 1 for prompt, target in pairs]
        rows = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]).log()
        return [rows[row].expand(len(target.split()), -1) for row, (_, target) in zip(likely, pairs, strict=True)]

    def _score(self, tokens: int, *, own: bool) -> Scored:
        return Scored(((LIKELY if own else UNLIKELY),) * tokens, (own,) * tokens)


def answered_before(prompt: str) -> str:
    """The base: right about everything as it was."""
    city = next((city for city in CITIES if city in prompt), None)
    if city is None:
        return "I hate it" if "rain" in prompt else "Cold"
    return f"Old {city}" if "run" in prompt else f"Very {city}"


TARGETS = {probe.prompt: probe.target for case in CASES for probe in case.in_scope}


def answered_after(prompt: str) -> str:
    """A perfect editor: every in-scope prompt its target, every other one as the base."""
    return TARGETS.get(prompt) or answered_before(prompt)


def applying(subject: Subject) -> Callable[[Sequence[Case]], AbstractContextManager[Subject]]:
    return lambda _: nullcontext(subject)


def judge(edited: Subject, *, cases: Sequence[Case] = CASES, base: Scripted | None = None, **asked) -> list[Record]:
    base = base or Scripted(answered_before)
    fields = asked.pop("fields", fields_of(METRICS))
    return Harness([cases], Asked(base), applying(edited), fields, **asked).run()


def figures(records: Sequence[Record]) -> dict[tuple[str, str], float]:
    return {(f.metric, f.mode): f.estimate.value for f in summarise(records, METRICS) if f.form is None}


HIT = pytest.approx(1.0)
MISS = pytest.approx(0.0, abs=1e-3)


def test_a_perfect_editor_gets_the_best_score_on_every_metric():
    scores = figures(judge(Scripted(answered_after)))
    right = {"edit_success", "efficacy", "paraphrase", "neighbourhood", "rome_score", "portability"}
    assert all(scores[name, mode] == HIT for name in right for mode in (GENERATED, TEACHER_FORCED))
    assert [scores["drawdown", mode] for mode in (GENERATED, TEACHER_FORCED)] == [0, 0]
    assert all(scores[f"{name}_magnitude", TEACHER_FORCED] > 0.85 for name in ("efficacy", "paraphrase"))
    assert scores["neighbourhood_magnitude", TEACHER_FORCED] > 0.85
    assert scores["sentiment_success", TEACHER_FORCED] > 0.95
    assert scores["sentiment_drawdown", TEACHER_FORCED] == MISS
    assert set(scores) == {(name, mode) for name, metric in METRICS.items() for mode in metric.modes}


def test_an_editor_that_changes_nothing_fails_in_scope_and_draws_nothing_down():
    scores = figures(judge(Scripted(answered_before)))
    wrong = {"edit_success", "efficacy", "paraphrase", "portability", "rome_score"}
    assert all(scores[name, mode] == MISS for name in wrong for mode in (GENERATED, TEACHER_FORCED))
    assert [scores[name, mode] for name in ("drawdown",) for mode in (GENERATED, TEACHER_FORCED)] == [0, 0]
    assert [scores["neighbourhood", mode] for mode in (GENERATED, TEACHER_FORCED)] == [1, 1]
    assert scores["efficacy_magnitude", TEACHER_FORCED] < -0.85
    assert scores["sentiment_success", TEACHER_FORCED] < 0.05
    assert scores["sentiment_drawdown", TEACHER_FORCED] == MISS


def test_an_editor_that_always_says_the_target_succeeds_in_scope_and_draws_everything_down():
    case = FACTS[0]
    records = judge(Scripted(lambda _: "New Paris"), cases=[case])
    scores = figures(records)
    for mode in (GENERATED, TEACHER_FORCED):
        assert [scores[name, mode] for name in ("efficacy", "paraphrase", "drawdown")] == [1, 1, 1]
        assert [scores[name, mode] for name in ("neighbourhood", "rome_score", "portability")] == [0, 0, 0]
        assert scores["edit_success", mode] == pytest.approx(2 / 3)
    assert scores["neighbourhood_magnitude", TEACHER_FORCED] < -0.85


def test_an_editor_that_changes_everything_at_random_gets_nothing_right():
    scores = figures(judge(Scripted(lambda prompt: f"no {prompt[::-1]}")))
    for mode in (GENERATED, TEACHER_FORCED):
        assert scores["edit_success", mode] == scores["portability", mode] == 0
        assert scores["drawdown", mode] == 1
    assert [scores[name, GENERATED] for name in ("efficacy", "neighbourhood", "rome_score")] == [0, 0, 0]
    assert scores["sentiment_drawdown", TEACHER_FORCED] == 0  # its replies are as unlikely as the base's


def test_an_editor_that_moves_the_replies_on_another_topic_draws_down_by_their_divergence():
    edited = Scripted(lambda prompt: "I love it" if "snow" in prompt else answered_after(prompt))
    scores = figures(judge(edited, cases=[MOOD]))
    per_token = 0.7 * (torch.tensor(0.8).log() - torch.tensor(0.1).log())  # where the two rows trade places
    tokens_moved, tokens = 3, 8
    assert scores["sentiment_drawdown", TEACHER_FORCED] == pytest.approx(float(per_token) * tokens_moved / tokens)


def test_failures_are_the_probes_that_came_out_wrong_and_no_others():
    edited = Scripted(lambda p: "other" if p in {"Paris is run by", "How old is Lima?"} else answered_after(p))
    failed = list(failures(judge(edited)))
    assert [(record.case, record.prompt, record.after) for record in failed] == [
        ("Paris", "Paris is run by", "other"),
        ("Lima", "How old is Lima?", "other"),
    ]


def test_what_an_edit_of_mood_says_in_scope_is_not_held_against_one_text():
    records = judge(Scripted(lambda prompt: answered_before(prompt).upper()), cases=[MOOD])
    assert [record.target for record in records if record.in_scope] == [None]
    assert all(not record.in_scope for record in failures(records))


def test_figures_are_broken_down_by_form_where_a_metric_rests_on_several():
    found = summarise(judge(Scripted(answered_after)), ["edit_success", "efficacy"])
    assert [f.form for f in found if (f.metric, f.mode) == ("edit_success", GENERATED)] == [
        None,
        COMPOSED,
        EDIT,
        PARAPHRASE,
    ]
    assert [f.form for f in found if f.metric == "efficacy"] == [None, None]


def test_each_question_is_put_to_the_base_once_for_a_whole_run():
    base = Scripted(answered_before)
    twice = [case for case in CASES for case in (case, replace(case, id=f"{case.id} again"))]
    memory = MemorySubject(base, lambda prompts: [Ruling(beta=0.0) for _ in prompts])
    records = judge(memory, cases=twice, base=base, questions_at_once=3)
    assert len(records) == sum(len(case.in_scope) + len(case.out_of_scope) for case in twice)
    assert len(base.generated) == len(set(base.generated))
    assert len(base.scored) == len(set(base.scored))


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_needs_no_field_that_was_not_asked_for_it(metric: str):
    everything = judge(Scripted(answered_after))
    asked = judge(Scripted(answered_after), fields=fields_of([metric]))
    assert summarise(asked, [metric]) == summarise(everything, [metric]) != []
    assert set(READ[metric]) == set(METRICS[metric].modes)


def test_an_answer_that_scoring_has_told_is_not_asked_for_again():
    class Telling(Scripted):
        def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
            scored = zip(super().score(pairs), pairs, strict=True)
            return [replace(found, answer=target) if found.exact else found for found, (_, target) in scored]

    telling = Telling(answered_after)
    records = judge(telling, cases=FACTS, fields=fields_of(["edit_success"]))
    assert summarise(records, METRICS) == summarise(
        judge(Scripted(answered_after), cases=FACTS, fields=fields_of(["edit_success"])), METRICS
    )
    assert set(telling.generated) == {probe.prompt for case in FACTS for probe in case.out_of_scope}


def test_only_what_the_metrics_read_is_asked():
    base, edited = Scripted(answered_before), Scripted(answered_after)
    judge(edited, base=base, cases=FACTS, fields=JUDGED)
    assert base.scored == edited.scored == []
    assert set(base.generated) == {probe.prompt for case in FACTS for probe in case.out_of_scope}
    forced = Scripted(answered_after)
    judge(forced, cases=FACTS, fields=Fields(in_scope=frozenset({"target_after"})))
    assert forced.generated == []
    assert set(forced.scored) == {(probe.prompt, probe.target) for case in FACTS for probe in case.in_scope}


def test_a_memory_is_asked_for_its_decisions_and_the_base_for_what_they_leave_open():
    base = Scripted(answered_before)
    rulings = {
        "Who runs Paris?": Ruling(beta=0.9, edit=FACTS[0].edit, verbatim="New Paris"),
        "Paris is run by": Ruling(beta=0.8, edit=FACTS[0].edit),
    }
    memory = MemorySubject(base, lambda prompts: [rulings.get(prompt, Ruling(beta=0.1)) for prompt in prompts])
    records = {record.prompt: record for record in judge(memory, cases=FACTS[:1], base=base)}
    said, read, left = (records[p] for p in ("Who runs Paris?", "Paris is run by", "How old is Paris?"))
    assert (said.after, said.beta, said.edited) == ("New Paris", 0.9, True)
    assert said.target_after is not None and said.target_after.exact
    assert said.previous_after is not None and not said.previous_after.exact
    assert "New fact: Who runs Paris? New Paris\nParis is run by" in base.generated
    assert (read.beta, read.edited) == (0.8, True)
    assert (left.after, left.before, left.edited) == ("Very Paris", "Very Paris", False)
    assert "Who runs Paris?" not in base.generated


def test_the_work_comes_in_steps_of_bounded_size_and_counts_what_is_judged():
    base = Scripted(answered_before)
    sizes: list[int] = []

    def decide(prompts: Sequence[str]) -> list[Ruling]:
        sizes.append(len(prompts))
        return [Ruling(beta=0.0) for _ in prompts]

    harness = Harness([CASES], Asked(base), applying(MemorySubject(base, decide)), JUDGED, questions_at_once=2)
    judged = []
    for step in harness.steps():
        before = len(base.generated)
        step.run()
        judged.append(len(harness.records))
        assert len(base.generated) - before <= (2 if step.where is Where.MODEL else 0)
    assert max(sizes) == 2
    assert judged == sorted(judged)
    assert 0 < judged[len(judged) // 2] < len(harness.records) == 22


def test_stopping_between_two_steps_puts_the_edits_out_of_force():
    in_force: list[str] = []

    @contextmanager
    def apply(cases: Sequence[Case]) -> Iterator[Subject]:
        in_force.extend(case.id for case in cases)
        try:
            yield Scripted(answered_after)
        finally:
            in_force.clear()

    steps = Harness([CASES], Asked(Scripted(answered_before)), apply, JUDGED, questions_at_once=2).steps()
    for _ in range(3):
        next(steps).run()
    assert in_force == [case.id for case in CASES]
    steps.close()
    assert in_force == []


def test_no_more_groups_are_in_force_at_once_than_allowed():
    in_force, most = set(), []

    @contextmanager
    def apply(cases: Sequence[Case]) -> Iterator[Subject]:
        in_force.add(cases[0].id)
        most.append(len(in_force))
        yield Scripted(answered_after)
        in_force.remove(cases[0].id)

    groups = [(case,) for case in CASES]
    for allowed in (1, 2):
        most.clear()
        records = Harness(groups, Asked(Scripted(answered_before)), apply, JUDGED, groups_at_once=allowed).run()
        assert max(most) == allowed
        assert [record.case for record in records] == [p.case for p in judge(Scripted(answered_after))]


def test_groups_hold_as_many_edits_as_asked_in_an_order_drawn_with_the_seed():
    groups = grouped(FACTS, 3, seed=5)
    assert sorted(len(group) for group in groups) == [1, 3]
    assert {case.id for group in groups for case in group} == set(CITIES)
    assert grouped(FACTS, 3, seed=5) == groups
    assert any(grouped(FACTS, 3, seed=seed) != groups for seed in range(10))


def test_edits_that_settle_the_same_thing_differently_never_share_a_group():
    rivals = [replace(FACTS[0], id=f"rival {n}", edit=QuestionAnswer("Who  runs paris?", f"N{n}")) for n in range(3)]
    cases = [*FACTS, *rivals]
    groups = grouped(cases, 100, seed=1)
    assert len(groups) == 4
    for group in groups:
        texts = [case.edit.text.casefold().split() for case in group if case.edit is not None]
        assert len({tuple(text) for text in texts}) == len(texts)


def test_cases_without_an_edit_do_not_take_the_place_of_one():
    probes = replace(FACTS[0], id="probes", edit=None)
    groups = grouped([*FACTS, probes], 1, seed=3)
    assert [sum(case.edit is not None for case in group) for group in groups] == [1, 1, 1, 1]
    assert probes in groups[0]
