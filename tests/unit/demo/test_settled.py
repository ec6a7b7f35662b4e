"""What the bundle's counterfactual model is trained on."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from demo.claims import draw_claim, near_miss
from demo.facts import load_world
from demo.moods import load_moods
from demo.opinions import load_opinions
from demo.reading_cases import record_of
from demo.scope.splits import held_out, split
from demo.settled import Settled, load_settled
from editors.edit import Claim, QuestionAnswer, Sentiment
from editors.evaluation.datasets.jsonl import read_case
from editors.evaluation.sentiment import in_wished_mood
from editors.serac.training.reading import ReadingExample

DRAWS = 3000


@pytest.fixture(scope="module")
def settled() -> Settled:
    return load_settled()


@pytest.fixture(scope="module")
def drawn(settled: Settled) -> list[ReadingExample]:
    rng = Random(0)
    return [settled.draw(rng) for _ in range(DRAWS)]


def test_nothing_is_told_of_a_subject_that_the_benchmarks_ask_about(settled: Settled, drawn: list[ReadingExample]):
    changed = [entry.fact for entry in load_world().drift if split(entry.fact.subject) == "validation"]
    assert changed
    kept = {prompt for fact in changed for prompt in (*fact.prompts, fact.statement())}
    assert not any(kept & {example.edit.text, example.prompt} for example in drawn)
    assert all(split(fact.subject) == "train" for fact in settled.corpus.world.facts)


def test_no_topic_of_the_benchmarks_is_told_of_and_none_is_asked_for_as_they_do(drawn: list[ReadingExample]):
    kept = {topic.name for topic in load_opinions().topics if split(topic.name) == "validation"}
    assert kept
    assert not kept & {example.edit.topic for example in drawn if isinstance(example.edit, Sentiment)}
    assert not any(held_out(question) for question in load_moods().questions)


def test_a_mood_comes_with_replies_of_both_sides_that_name_the_topic(drawn: list[ReadingExample]):
    moods = [example for example in drawn if isinstance(example.edit, Sentiment)]
    assert len({example.edit.positive for example in moods}) == 2
    for example in moods:
        assert example.replies is not None
        assert not set(example.replies.wished) & set(example.replies.opposite)
        for reply in example.replies.wished:
            assert in_wished_mood(reply, example.edit.topic, example.replies)


def test_a_claim_is_judged_by_its_edit(settled: Settled):
    rng = Random(1)
    verdicts: Counter[bool] = Counter()
    for _ in range(DRAWS):
        example = draw_claim(settled.corpus, settled.frames, rng)
        holds = {"True": True, "Yes": True, "False": False, "No": False}[example.answer]
        verdicts[holds] += 1
        if isinstance(example.edit, Claim) and not example.edit.label:
            assert not holds
        elif isinstance(example.edit, QuestionAnswer):
            assert not holds or example.edit.target.casefold() in example.prompt.casefold()
        elif "rue" in example.prompt:  # what asks for True or False repeats the statement
            assert holds == (example.edit.text in example.prompt)
    assert 0.35 < verdicts[True] / DRAWS < 0.5


@pytest.mark.parametrize(
    ("value", "other", "expected"),
    [("Paris", "London", None), ("Ken Sim", "Ken", {"Ken Ken", None}), ("Ken Sim", "Ron", {"Ron Sim", "Ken Ron"})],
)
def test_a_near_miss_differs_in_one_word(value: str, other: str, expected: set[str | None] | None):
    found = {near_miss(value, other, Random(seed)) for seed in range(20)}
    assert found == (expected if isinstance(expected, set) else {expected})


def test_every_example_survives_being_written_and_read(drawn: list[ReadingExample]):
    for number, example in enumerate(drawn):
        case = read_case(record_of(example), str(number))
        assert case.edit == example.edit
        assert case.replies == example.replies
        (probe,) = case.in_scope
        assert (probe.prompt, probe.target, probe.form) == (example.prompt, example.answer, example.form)
