"""What needs a CUDA device; skipped, with a line on docs/skips.md, where there is none."""

from __future__ import annotations

import pytest
import torch

from editors.model.loading import load_base
from service.domain.generations import Sampling
from service.runtime.engine import TransformersEngine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_gpu_is_taken_when_there_is_one(model_folders):
    base = load_base(model_folders["llama"], dtype="bfloat16")
    assert (base.device.type, base.model.device.type, base.dtype) == ("cuda", "cuda", torch.bfloat16)


def test_greedy_answers_on_the_gpu_are_those_of_the_cpu(model_folders):
    on_cpu, on_gpu = (
        TransformersEngine(load_base(model_folders["llama"], device=device, dtype="float32"))
        for device in ("cpu", "cuda")
    )
    sampling = Sampling(max_new_tokens=8)
    assert on_gpu.complete("Tell me more", sampling) == on_cpu.complete("Tell me more", sampling)


def test_a_seeded_sample_on_the_gpu_leaves_its_random_state_alone(model_folders):
    engine = TransformersEngine(load_base(model_folders["llama"], device="cuda"))
    before = torch.cuda.get_rng_state()
    sampling = Sampling(max_new_tokens=8, temperature=1.0, seed=3)
    assert engine.complete("Tell me more", sampling) == engine.complete("Tell me more", sampling)
    assert torch.equal(torch.cuda.get_rng_state(), before)
