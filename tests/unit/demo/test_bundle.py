"""The demonstration model as it is shipped."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
from safetensors import safe_open

from demo import BUNDLE
from demo.card import model_card
from demo.evaluate import Answerer, evaluate
from demo.facts import load_world
from editors.model.loading import load_base

WORLD = load_world()


@pytest.fixture(scope="module")
def answer() -> Answerer:
    base = load_base(BUNDLE, device="cpu")
    return Answerer(base.model, base.tokenizer)


def test_the_weights_are_small_and_in_half_precision():
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) <= 40e6
    with safe_open(BUNDLE / "model.safetensors", framework="pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118


def test_the_card_says_what_the_evaluation_measured():
    rows = json.loads((BUNDLE / "evaluation.json").read_text(encoding="utf-8"))
    with safe_open(BUNDLE / "model.safetensors", framework="pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    assert (BUNDLE / "README.md").read_text(encoding="utf-8") == model_card(WORLD, rows, parameters)


def test_it_recalls_the_facts_it_was_trained_on(answer: Answerer):
    facts = Random(1).sample(WORLD.facts, 200)
    answers = answer([fact.prompts[0] for fact in facts])
    assert sum(text == fact.object for text, fact in zip(answers, facts, strict=True)) >= 190


def test_the_evaluation_of_a_model_that_knows_nothing_is_zero():
    class Silent:
        def __call__(self, prompts: list[str]) -> list[str]:
            return ["" for _ in prompts]

    shares = evaluate(Silent(), cases=20)  # type: ignore[arg-type]
    assert {share.value for share in shares.values()} == {0.0}
