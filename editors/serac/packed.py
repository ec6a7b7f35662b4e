"""The encoder as it serves: rows of all lengths side by side, without padding.

The hidden states of a row depend on that row alone (see `layers`): reading it in company gives the very same numbers
on a CPU, and hardly any time is spent on padding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from editors.serac.layers import Layers, parts
from editors.serac.threads import side_by_side

Tokens = tuple[list[int], int]
"""Token ids of a row, special tokens included, and how many of them belong to the first segment."""

_FEWEST_TOKENS = 128
"""That a thread is worth; fewer than twice as many are read by one."""
_MOST_TOKENS = 1024
"""As many keep a core busy; what they need between two layers still fits in its cache."""
_MOST_TOKENS_ELSEWHERE = 16_384
_EXACT, _GRAIN = 32, 16
"""More tokens than the first are filled up to a multiple of the second: for each number of tokens that it meets, oneDNN
compiles kernels and keeps them, about a megabyte. Fewer, such as one question, are left alone."""
_FILLER: Tokens = ([0], 1)


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

    def read(self, rows: Sequence[Tokens], pool: Callable[[Tensor], Tensor]) -> Tensor:
        """What is made of the last hidden states of every row, [len(rows), ...].

        Args:
            rows: What to read, at least one.
            pool: From the states [n, t, width] of rows of one length to [n, ...]; several threads may call it.
        """
        batches = list(_batches([len(ids) for ids, _ in rows], self._at_once(rows)))
        read = partial(self._read, rows, pool)
        found = side_by_side(read, batches) if self._device.type == "cpu" else map(read, batches)
        order = torch.tensor([i for batch in batches for i in batch])
        return torch.cat(list(found))[order.argsort()]

    def _at_once(self, rows: Sequence[Tokens]) -> int:
        """Tokens of a batch: on a CPU, such that every thread has one."""
        if self._device.type != "cpu":
            return _MOST_TOKENS_ELSEWHERE
        tokens, longest = sum(len(ids) for ids, _ in rows), max(len(ids) for ids, _ in rows)
        # A batch falls short of this by less than its longest row, so no part is left over.
        return min(max(tokens // torch.get_num_threads() + longest, _FEWEST_TOKENS), _MOST_TOKENS)

    @torch.inference_mode()
    def _read(self, rows: Sequence[Tokens], pool: Callable[[Tensor], Tensor], batch: Sequence[int]) -> Tensor:
        """As `read`, of those rows alone, which stand by length."""
        lengths = Counter(len(rows[i][0]) for i in batch)
        shapes = [(n, t) for t, n in lengths.items()]
        tokens = sum(n * t for n, t in shapes)
        filling = -tokens % _GRAIN if tokens > _EXACT else 0
        x = self._embed([*(rows[i] for i in batch), *[_FILLER] * filling])
        x = self._layers(x, [*shapes, (filling, 1)] if filling else shapes)[:tokens]
        return torch.cat([pool(part.view(n, t, -1)) for part, (n, t) in parts(x, shapes)])

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
