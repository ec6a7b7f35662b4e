"""Texts that a model writes by itself: ROME's prefixes, and inputs whose answers fine-tuning should keep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editors.model.loading import BaseModel
from editors.model.views import view

TOP_K = 5
"""Likeliest tokens that a text is drawn from, as in ROME's code."""


@torch.no_grad()
def sampled_texts(base: BaseModel, shapes: Sequence[tuple[int, int]], *, seed: int) -> list[str]:
    """Texts drawn token by token from the likeliest few, after the token that begins a text.

    Seeded by a generator of their own, so that neither depends on the other: the texts, and the global random state.

    Args:
        base: The writer.
        shapes: (tokens, texts): how many texts of how many tokens.
        seed: Of the draws.

    Returns:
        The texts without surrounding white space; one may be empty.
    """
    model, generator = view(base.model), torch.Generator().manual_seed(seed)
    texts: list[str] = []
    for length, count in shapes:
        ids, cache = torch.full((count, 1), _beginning(base), device=base.device), None
        for _ in range(length):
            output = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
            logits, cache = output.logits[:, -1].float().cpu(), output.past_key_values
            ids = torch.cat([ids, _draw(_without_special(base, logits), generator).to(ids.device)], dim=1)
        texts += [str(base.tokenizer.decode(row[1:], skip_special_tokens=True)).strip() for row in ids]
    return texts


def _beginning(base: BaseModel) -> int:
    """The token that begins a text; where a model has none, the one that ends the text before."""
    tokenizer = base.tokenizer
    return int(next(t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id, 0) if t is not None))


def _without_special(base: BaseModel, logits: Tensor) -> Tensor:
    kept = logits.clone()
    kept[:, [i for i in base.tokenizer.all_special_ids if i < kept.shape[1]]] = -torch.inf
    kept[:, len(base.tokenizer) :] = -torch.inf  # heads are often padded beyond the vocabulary
    return kept


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One token for each row: [rows, 1]."""
    top = logits.topk(min(TOP_K, logits.shape[1]))
    return top.indices.gather(1, top.values.softmax(dim=-1).multinomial(1, generator=generator))
