"""What the demonstration model is trained on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from demo.corpus import Corpus, Example, batch
from demo.facts import load_world
from demo.opinions import load_opinions
from demo.reading import load_inventor, scrambled_name

WORLD = load_world()


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(WORLD, load_opinions(), load_inventor(held_out=False))


def test_a_step_draws_the_same_examples_every_time(corpus: Corpus):
    def draw(step: int, seed: int) -> list[Example]:
        return batch(corpus, step, 64, closed_book=0.5, seed=seed)

    assert draw(5, seed=1) == draw(5, seed=1)
    assert draw(5, seed=1) != draw(6, seed=1)
    assert draw(5, seed=1) != draw(5, seed=2)


def test_held_out_phrasings_are_never_trained_on(corpus: Corpus):
    held_out = {prompt for fact in WORLD.facts for prompt in fact.held_out_prompts}
    strange = replace(corpus, strangeness=0.6)
    for step in range(40):
        for example in batch(strange, step, 160, closed_book=0.5, seed=2018):
            assert not held_out & {example.prompt, example.prompt.rpartition("\n")[2]}


def test_every_fact_comes_once_before_any_comes_again(corpus: Corpus):
    answers = Counter(prompt for fact in WORLD.facts for prompt in fact.prompts)
    steps = len(WORLD.facts) // 50
    seen = Counter(
        e.prompt
        for step in range(steps)
        for e in batch(corpus, step, 100, closed_book=0.5, seed=1)
        if e.prompt in answers
    )
    of_fact = Counter()
    for fact in WORLD.facts:
        of_fact[sum(seen[prompt] for prompt in fact.prompts)] += 1
    assert of_fact[1] >= 0.98 * len(WORLD.facts)
    assert set(of_fact) <= {0, 1, 2}


def test_names_kept_for_measuring_never_appear_in_training(corpus: Corpus):
    kept = load_inventor(held_out=True)
    for part, words in kept.lists.items():
        assert words, part
        assert not set(words) & set(corpus.inventor.lists[part])


def test_an_answer_to_a_reading_task_follows_the_edit(corpus: Corpus):
    rng = Random(0)
    for _ in range(500):
        example = corpus.reading_invented(rng)
        context, _, _ = example.text.partition("\n")
        assert example.answer.lower() in context.lower()


def test_a_contradicted_claim_is_false(corpus: Corpus):
    rng = Random(0)
    labels = Counter(corpus.reading_entailed(rng).answer for _ in range(1000))
    assert set(labels) == {"True", "False"}
    assert 0.4 < labels["True"] / 1000 < 0.6


def test_scrambled_names_hold_rare_tokens_as_often_as_frequent_ones(corpus: Corpus):
    tokens = (" Par", " Kemp", "czin", "is", "ski", "?", " 1", "<|pad|>")
    rng = Random(0)
    names = [scrambled_name(tokens, rng) for _ in range(4000)]
    counts = {piece: sum(name.lower().count(piece) for name in names) for piece in ("czin", "ski")}
    assert 0.8 < counts["czin"] / counts["ski"] < 1.25
    assert all(name == name.strip() and not set(name) & set("?1<|>") for name in names)


def test_tokens_to_scramble_are_used_only_where_they_are_given(corpus: Corpus):
    rare = (" Qqq", "zzz")
    values = [
        example.answer
        for tokens in ((), rare)
        for example in batch(replace(corpus, strangeness=0.7, tokens=tokens), 3, 400, closed_book=0.0, seed=1)
    ]
    without, scrambled = values[:400], values[400:]
    assert not any("zzz" in value.lower() for value in without)
    assert sum("zzz" in value.lower() or "qqq" in value.lower() for value in scrambled) > 40
