"""Greedy generation for many prompts at once: each is continued as it would be alone.

Knows token ids only. Padding, batching and the end of each answer are settled here, so that callers need not care on
which side a tokenizer pads, or whether it has a padding token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

TOKENS_AT_ONCE = 8192
"""Prompt and answer tokens of a batch, padding included: what its key/value cache has to hold."""


def continue_greedily(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> list[list[int]]:
    """Continue each prompt with its likeliest token until the model ends it or `max_new_tokens` are written.

    Batching changes the order in which floats are summed: where two tokens are equally likely to the last digits of
    the model's dtype, an answer may differ from the one that the prompt gets alone.

    Args:
        model: With the tokens that end an answer in its generation config.
        prompts: Token ids of each prompt, at least one; prompt and answer fit in the model's context.
        max_new_tokens: Most tokens written after each.
        tokens_at_once: Most tokens in a batch, so that long prompts do not exhaust memory; a batch has one prompt
            at least.

    Returns:
        The ids written, in the order of the prompts; an end token is the last of those that it ended.
    """
    ends = end_tokens(model)
    written: list[list[int]] = [[] for _ in prompts]
    for batch in batches([len(prompt) + max_new_tokens for prompt in prompts], tokens_at_once):
        output = _generate(model, [prompts[i] for i in batch], ends, max_new_tokens)
        for i, ids in zip(batch, output.tolist(), strict=True):
            written[i] = _until_end(ids, ends)
    return written


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The ids that end an answer, by the model's generation config; there may be none."""
    end = getattr(model.generation_config, "eos_token_id", None)
    return [end] if isinstance(end, int) else list(end or ())


def answers_in(output: Tensor, model: PreTrainedModel, width: int) -> Tensor:
    """What `generate` wrote after prompts of `width` tokens, [prompts, written], without a decoder's start token."""
    return output[:, 1 if model.config.is_encoder_decoder else width :]


def batches(lengths: Sequence[int], tokens_at_once: int) -> Iterator[list[int]]:
    """Indices of sequences that go together, shortest first: like lengths, and few enough tokens with the padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > tokens_at_once:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _generate(model: PreTrainedModel, prompts: list[Sequence[int]], ends: list[int], max_new_tokens: int) -> Tensor:
    """The ids written after each prompt, [len(prompts), written]; what follows an end token is padding."""
    width, pad = max(map(len, prompts)), 0  # padding is masked, so any token that the vocabulary has will do
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends or None, pad_token_id=pad
    )
    generate: Any = model.generate
    with torch.inference_mode():
        output: Tensor = generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=config,
        )
    return answers_in(output, model, width)


def _until_end(ids: list[int], ends: list[int]) -> list[int]:
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: stop + 1]
