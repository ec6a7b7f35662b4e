"""Texts that a model writes by itself: ROME's prefixes, and inputs whose answers fine-tuning should keep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editors.model.loading import BaseModel
from editors.model.views import view
from editors.surgery.quick import Quick

TOP_K = 5
"""Likeliest tokens that a text is drawn from, as in ROME's code."""


@torch.no_grad()
def sampled_texts(base: BaseModel, shapes: Sequence[tuple[int, int]], *, seed: int, quick: Quick) -> list[str]:
    """Texts drawn token by token from the likeliest few, after the token that begins a text.

    Seeded by a generator of their own, so that neither depends on the other: the texts, and the global random state.
    What each text draws is settled beforehand, and so it is the same text whether others are written with it or not.

    Args:
        base: The writer.
        shapes: (tokens, texts): how many texts of how many tokens.
        seed: Of the draws.
        quick: Of the base.

    Returns:
        The texts without surrounding white space; one may be empty.
    """
    if not shapes:
        return []
    model, cache = quick(view(base.model)), None
    lengths = [length for length, count in shapes for _ in range(count)]
    ids = torch.full((len(lengths), 1), _beginning(base), device=base.device)
    for waits in _waits(shapes, seed):
        output = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
        logits, cache = output.logits[:, -1].float().cpu(), output.past_key_values
        ids = torch.cat([ids, _draw(_without_special(base, logits), waits).to(ids.device)], dim=1)
    written = [row[1 : 1 + length] for row, length in zip(ids, lengths, strict=True)]
    return [str(base.tokenizer.decode(text, skip_special_tokens=True)).strip() for text in written]


def _waits(shapes: Sequence[tuple[int, int]], seed: int) -> list[Tensor]:
    """For each step what each text draws: how long it would wait for each candidate of an even chance, [texts, TOP_K].

    Texts that are done draw again what they drew last.
    """
    generator = torch.Generator().manual_seed(seed)
    waits = [
        [torch.empty(count, TOP_K).exponential_(generator=generator) for _ in range(length)] for length, count in shapes
    ]
    longest = max(length for length, _ in shapes)
    return [torch.cat([own[min(step, len(own) - 1)] for own in waits]) for step in range(longest)]


def _beginning(base: BaseModel) -> int:
    """The token that begins a text; where a model has none, the one that ends the text before."""
    tokenizer = base.tokenizer
    return int(next(t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id, 0) if t is not None))


def _without_special(base: BaseModel, logits: Tensor) -> Tensor:
    kept = logits.clone()
    kept[:, [i for i in base.tokenizer.all_special_ids if i < kept.shape[1]]] = -torch.inf
    kept[:, len(base.tokenizer) :] = -torch.inf  # heads are often padded beyond the vocabulary
    return kept


def _draw(logits: Tensor, waits: Tensor) -> Tensor:
    """One token for each row, the first to come where likelier ones come sooner: [rows, 1]."""
    top = logits.topk(TOP_K)
    return top.indices.gather(1, (top.values.softmax(dim=-1) / waits).argmax(dim=-1, keepdim=True))
