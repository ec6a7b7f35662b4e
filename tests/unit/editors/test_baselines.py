from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from editors.edit import Claim, QuestionAnswer, Sentiment, Statement
from editors.evaluation.subject import Scored
from editors.evaluation.subjects import Ruling
from editors.serac.baselines import HiddenStates, LookupCache, best_radius, lookup, retrieve_and_prompt

EDIT = QuestionAnswer("at 10", "ten")


class Echo:
    """A base that says what it was asked."""

    def generate(self, prompts) -> list[str]:
        return [f"base: {prompt}" for prompt in prompts]

    def score(self, pairs) -> list[Scored]:
        return [Scored((0.0,), (True,)) for _ in pairs]

    def distributions(self, pairs) -> list[Tensor]:
        return [torch.zeros(1, 2) for _ in pairs]


def on_a_line(texts):
    """A text ends with its place."""
    return np.array([[float(text.split()[-1]), 0.0] for text in texts], dtype=np.float32)


def test_the_lookup_cache_answers_only_within_its_radius():
    cached = lookup(Echo(), LookupCache([EDIT], on_a_line, 2.75))
    assert cached.generate(["at 12.7", "at 12.8"]) == ["ten", "base: at 12.8"]


def test_the_nearest_of_the_cached_edits_answers():
    cache = LookupCache([EDIT, QuestionAnswer("at 14", "fourteen")], on_a_line, 3.0)
    assert lookup(Echo(), cache).generate(["at 12.1", "at 11.9"]) == ["fourteen", "ten"]


def test_a_radius_of_nothing_answers_nothing():
    assert lookup(Echo(), LookupCache([EDIT], on_a_line, 0.0)).generate(["at 10"]) == ["base: at 10"]


def test_a_claim_is_cached_under_the_question_that_its_label_answers():
    cache = LookupCache([Claim("it is 3", label=False), Statement("it is 8")], on_a_line, 0.5)
    assert [r.verbatim for r in cache.decide(["True or false: it is 3", "it is 8"])] == ["False", "True"]


def test_an_edit_of_mood_has_no_answer_to_cache():
    cache = LookupCache([Sentiment("rain", positive=True)], on_a_line, 100.0)
    assert cache.decide(["at 1"]) == [Ruling()]
    with pytest.raises(ValueError, match="empty cache"):
        cache.distances(["at 1"])


def test_the_radius_lies_between_the_distances_that_it_tells_apart():
    assert best_radius(np.array([1.0, 2.0, 3.0]), np.array([4.0, 9.0])) == 3.5


def test_the_radius_is_nothing_where_near_inputs_are_the_wrong_ones():
    assert best_radius(np.array([5.0, 6.0]), np.array([1.0, 2.0])) == 0.0


def test_retrieve_and_prompt_has_the_base_read_the_edit_and_then_the_prompt():
    edit = QuestionAnswer("Who is the UK PM?", "Boris Johnson")

    def decide(prompts):
        return [Ruling(edit=edit, verbatim="Boris Johnson") if "UK" in prompt else Ruling() for prompt in prompts]

    answers = retrieve_and_prompt(Echo(), decide).generate(["Who leads the UK?", "Who leads Peru?"])
    assert answers == [
        "base: New fact: Who is the UK PM? Boris Johnson\nWho leads the UK?",
        "base: Who leads Peru?",
    ]


def test_a_hidden_state_is_the_mean_over_its_own_tokens_alone(tiny_base):
    hidden = HiddenStates(tiny_base.model, tiny_base.tokenizer)
    texts = ["a cat", "a much longer text about nothing at all"]
    together = hidden(texts)
    with torch.inference_mode():
        ids = tiny_base.tokenizer(texts[0], return_tensors="pt")["input_ids"]
        last = tiny_base.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    assert together.shape == (2, tiny_base.model.config.hidden_size)
    np.testing.assert_allclose(together[0], last[0].mean(dim=0).numpy(), atol=1e-5)
    np.testing.assert_allclose(together[1], hidden(texts[1:])[0], atol=1e-5)
