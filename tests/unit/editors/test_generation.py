from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from editors.model.generation import batches, continue_greedily, end_tokens

PROMPTS = [[5, 9, 40], [7], [8, 30, 31, 32, 90, 12, 6], [100, 101], [44, 45, 46, 47, 48], [3, 3, 3, 3]]


@pytest.fixture(params=["llama", "gpt2", "opt"])
def model(request: pytest.FixtureRequest, model_folders: dict[str, Path]):
    return AutoModelForCausalLM.from_pretrained(model_folders[request.param], dtype=torch.float32).eval()


def alone(model, prompt: list[int], *, max_new_tokens: int) -> list[int]:
    """What `generate` writes after one prompt, without any padding."""
    ids = torch.tensor([prompt])
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=end_tokens(model) or None, pad_token_id=0
    )
    with torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return output[0, len(prompt) :].tolist()


def test_many_prompts_are_continued_as_each_would_be_alone(model):
    expected = [alone(model, prompt, max_new_tokens=9) for prompt in PROMPTS]
    assert continue_greedily(model, PROMPTS, max_new_tokens=9) == expected
    assert len({tuple(written) for written in expected}) > 1


def test_an_answer_ends_with_the_models_end_token_and_the_others_go_on(model):
    model.generation_config.eos_token_id = None
    free = continue_greedily(model, PROMPTS, max_new_tokens=9)
    model.generation_config.eos_token_id = [free[2][3], free[4][1]]
    ended = continue_greedily(model, PROMPTS, max_new_tokens=9)
    assert ended == [alone(model, prompt, max_new_tokens=9) for prompt in PROMPTS]
    assert ended[4] == free[4][: len(ended[4])]
    assert len(ended[4]) <= 2
    assert ended[4][-1] in model.generation_config.eos_token_id


def test_a_model_without_any_end_token_writes_as_much_as_it_may(model):
    model.generation_config.eos_token_id = None
    assert [len(written) for written in continue_greedily(model, PROMPTS, max_new_tokens=5)] == [5] * len(PROMPTS)


def test_answers_do_not_depend_on_how_prompts_are_batched(model):
    together = continue_greedily(model, PROMPTS, max_new_tokens=6)
    assert continue_greedily(model, PROMPTS, max_new_tokens=6, tokens_at_once=1) == together
    assert continue_greedily(model, PROMPTS[::-1], max_new_tokens=6, tokens_at_once=30) == together[::-1]


def test_no_prompts_have_no_answers(model):
    assert continue_greedily(model, [], max_new_tokens=4) == []


def test_a_batch_holds_like_lengths_and_no_more_tokens_than_allowed():
    lengths = [4, 1, 9, 4, 2, 100, 9]
    made = list(batches(lengths, 20))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 20 for batch in made[:-1])
    assert made[-1] == [5]
    ordered = [lengths[i] for batch in made for i in batch]
    assert ordered == sorted(lengths)
