"""The encoder as it serves: rows of all lengths side by side, without padding.

The linear layers, the norms and the activation see one matrix of all tokens, and treat each by itself; attention goes
over rows of one length at a time. So the hidden states of a row depend on that row alone: reading it in company gives
the very same numbers (on a CPU, see `linear`), and hardly any time is spent on padding. What there is makes the matrix
one of few heights: for each that it meets, oneDNN compiles kernels and keeps them, about a megabyte.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from editors.serac.linear import Linear

_TOKENS_AT_ONCE = 512
"""As many keep a CPU's cores busy; what they need between two layers still fits in its cache."""
_TOKENS_AT_ONCE_ELSEWHERE = 16_384
_EXACT, _HEIGHT = 32, 16
"""More tokens than the first are filled up to a multiple of the second; fewer, such as one question, are left alone."""

Tokens = tuple[list[int], int]
"""Token ids of a row, special tokens included, and how many of them belong to the first segment."""
Shape = tuple[int, int]
"""n rows of t tokens each, which stand one after another."""


class PackedEncoder:
    """A BERT encoder with weights prepared for reading.

    Args:
        model: The encoder, in Hugging Face's architecture `bert`. It is only read.
        linear: Prepares a linear layer.
    """

    def __init__(self, model: Any, linear: Callable[[nn.Linear], Linear]) -> None:
        self.width = int(model.config.hidden_size)
        self._device = model.device
        own = model.embeddings
        self._tables = [own.word_embeddings.weight, own.position_embeddings.weight, own.token_type_embeddings.weight]
        self._norm = own.LayerNorm
        self._layers = [_Layer(layer, linear) for layer in model.encoder.layer]

    def read(self, rows: Sequence[Tokens]) -> Iterator[tuple[list[int], Tensor]]:
        """The last hidden states of every row, by length: the indices of n rows, and their states [n, t, width]."""
        at_once = _TOKENS_AT_ONCE if self._device.type == "cpu" else _TOKENS_AT_ONCE_ELSEWHERE
        for batch in _batches([len(ids) for ids, _ in rows], at_once):
            groups = [list(group) for _, group in itertools.groupby(batch, key=lambda i: len(rows[i][0]))]
            shapes = [(len(group), len(rows[group[0]][0])) for group in groups]
            yield from zip(groups, self._states([rows[i] for i in batch], shapes), strict=True)

    @torch.inference_mode()
    def _states(self, rows: Sequence[Tokens], shapes: Sequence[Shape]) -> list[Tensor]:
        """The last hidden states of rows that stand in the order of their shapes, [n, t, width] for each shape."""
        x = self._embed([*rows, *_filling(sum(n * t for n, t in shapes))])
        for layer in self._layers:
            x = layer(x, shapes)
        return [part.view(n, t, -1) for part, (n, t) in zip(_parts(x, shapes), shapes, strict=True)]

    def _embed(self, rows: Sequence[Tokens]) -> Tensor:
        """[tokens of all rows, width]."""
        ids = np.concatenate([row for row, _ in rows])
        positions = np.concatenate([np.arange(len(row)) for row, _ in rows])
        segments = np.concatenate([np.arange(len(row)) >= first for row, first in rows]).astype(np.int64)
        tables, norm = self._tables, self._norm
        looked_up = [
            nn.functional.embedding(torch.from_numpy(numbers).to(self._device), table)
            for numbers, table in zip((ids, positions, segments), tables, strict=True)
        ]
        return _normalised(looked_up[0].add_(looked_up[1]).add_(looked_up[2]), norm)


class _Layer:
    """One layer of the encoder."""

    def __init__(self, layer: Any, linear: Callable[[nn.Linear], Linear]) -> None:
        attention, own = layer.attention, layer.attention.self
        self._heads = int(own.num_attention_heads)
        self._qkv = linear(_stacked([own.query, own.key, own.value]))
        self._mix = linear(attention.output.dense)
        self._norm_mixed = attention.output.LayerNorm
        self._up, self._down = linear(layer.intermediate.dense), linear(layer.output.dense)
        self._norm = layer.output.LayerNorm

    def __call__(self, x: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """The next hidden states, [tokens, width]."""
        mixed = self._mix(self._attend(self._qkv(x), shapes))
        x = _normalised(mixed.add_(x), self._norm_mixed)
        raised = nn.functional.gelu(self._up(x))
        return _normalised(self._down(raised).add_(x), self._norm)

    def _attend(self, qkv: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """What each token gathers from its row, [tokens, width]."""
        gathered = []
        for part, (n, t) in zip(_parts(qkv, shapes), shapes, strict=True):
            q, k, v = part.view(n, t, 3, self._heads, -1).permute(2, 0, 3, 1, 4)  # each [n, heads, t, width / heads]
            gathered.append(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n * t, -1))
        filling = len(qkv) - sum(n * t for n, t in shapes)
        return torch.cat([*gathered, qkv.new_zeros(filling, qkv.shape[1] // 3)])


def _stacked(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer that computes what these do, one after another."""
    stacked = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers))
    stacked.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    stacked.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]), requires_grad=False)
    return stacked


def _parts(x: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
    """The rows [n * t, ...] of each shape, without the filling after them."""
    sizes = [n * t for n, t in shapes]
    parts: Sequence[Tensor] = x[: sum(sizes)].split(sizes)
    return parts


def _filling(tokens: int) -> list[Tokens]:
    """What fills so many tokens up: a row that nothing attends to."""
    missing = -tokens % _HEIGHT if tokens > _EXACT else 0
    return [([0] * missing, missing)] if missing else []


def _normalised(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return nn.functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _batches(lengths: Sequence[int], at_once: int) -> Iterator[list[int]]:
    """Indices of rows that are read together, shortest first; so those of one length are neighbours."""
    batch: list[int] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and tokens + lengths[i] > at_once:
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += lengths[i]
    if batch:
        yield batch
