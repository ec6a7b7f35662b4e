"""The benchmark of serving, on a small random model."""

from __future__ import annotations

import pytest
from transformers import GPT2Config

import demo
from benchmarks import serving
from benchmarks.decisions import Questions
from editors.model.loading import load_base
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import SimilarityScope
from service.runtime.live_memory import LiveMemory

pytestmark = pytest.mark.anyio


async def test_a_model_is_measured_and_its_answers_together_are_those_alone(
    tmp_path, encoder: SentenceEncoder, monkeypatch
):
    monkeypatch.setattr(serving, "EDITS", 0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2)
    base = load_base(serving.random_model(tmp_path / "gpt2", config), device="cpu")
    memory = LiveMemory(encoder, SimilarityScope.load(demo.SIMILARITY), candidates=3, threshold=None)
    prompts = [f"What is {number} and {number}?" for number in range(40)]
    questions = Questions(prompts, encoder.encode(prompts[:1]), [])
    served = await serving.measured(base, questions, memory, requests=48, compared=40)
    assert (served.compared, served.different) == (40, 0)
    assert min(served.loop, served.static, served.plain, served.continuous) > 0
    assert 0 < served.first_p50 <= served.first_p99
    lines = serving.render([served])
    assert any(line.startswith("| gpt2 | ") and f"{served.continuous / served.loop:.2f}" in line for line in lines)
    costs = f"| {served.cost:.3f} | {served.found_ms:.1f} | {served.found_cost:.3f} | 40 | 0 |"
    assert any(costs in line for line in lines)


async def test_what_is_asked_has_answers_of_all_lengths():
    lengths = [
        sampling.max_new_tokens
        for _, sampling in serving.traffic(Questions(["a"], None, []), 1000)  # type: ignore[arg-type]
    ]
    assert (min(lengths), max(lengths)) == (serving.SHORTEST, serving.LONGEST)
    assert abs(sum(lengths) / 1000 - serving.MEAN) < 4
