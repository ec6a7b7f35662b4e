"""The encoder as it serves: rows of all lengths side by side, without padding.

The hidden states of a row depend on that row alone (see `layers`): reading it in company gives the very same numbers
on a CPU, and no time is spent on padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from editors.serac.layers import Layers, Shape, parts

_TOKENS_AT_ONCE = 512
"""As many keep a CPU's cores busy; what they need between two layers still fits in its cache."""
_TOKENS_AT_ONCE_ELSEWHERE = 16_384

Tokens = tuple[list[int], int]
"""Token ids of a row, special tokens included, and how many of them belong to the first segment."""


class PackedEncoder:
    """A BERT encoder with weights prepared for reading.

    Args:
        model: The encoder, in Hugging Face's architecture `bert`. It is only read.
        layers: What was made of its layers.
    """

    def __init__(self, model: Any, layers: Layers) -> None:
        self.width = int(model.config.hidden_size)
        self._device = model.device
        own = model.embeddings
        self._tables = [own.word_embeddings.weight, own.position_embeddings.weight, own.token_type_embeddings.weight]
        self._layers = layers

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
        x = self._layers(self._embed(rows), shapes)
        return [part.view(n, t, -1) for part, (n, t) in parts(x, shapes)]

    def _embed(self, rows: Sequence[Tokens]) -> Tensor:
        """The summed embeddings, [tokens of all rows, width]."""
        ids = np.concatenate([row for row, _ in rows])
        positions = np.concatenate([np.arange(len(row)) for row, _ in rows])
        segments = np.concatenate([np.arange(len(row)) >= first for row, first in rows]).astype(np.int64)
        looked_up = [
            nn.functional.embedding(torch.from_numpy(numbers).to(self._device), table)
            for numbers, table in zip((ids, positions, segments), self._tables, strict=True)
        ]
        return looked_up[0].add_(looked_up[1]).add_(looked_up[2])


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
