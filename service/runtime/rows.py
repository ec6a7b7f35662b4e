"""Rows: the keys and values of sequences that are continued together, one row each, all ending in the same column.

A row that joins, or leaves, costs a copy of itself; a step costs no copy at all. Since the rows end together, each is
left-padded, which is what every causal model of `transformers` takes in `generate`: masks, sliding windows included,
and positions are the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

_SPARE = 64
"""Columns kept free beyond those needed, so that rows do not have to be moved for every one that joins."""


class Rows(Cache):
    """A key/value cache of `transformers` whose rows come and go.

    Attributes:
        lengths: Columns that each row uses.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.start = self.end = 0
        super().__init__(layers=[])

    def mask(self, new: int = 1) -> Tensor:
        """Which columns each row uses once `new` more are written, [rows, columns], on the CPU."""
        columns = torch.arange(self.end - self.start + new)
        return (columns >= (self.end - self.start) - torch.tensor(self.lengths)[:, None]).long()

    def join(self, cache: DynamicCache, lengths: Sequence[int], *, room: int) -> None:
        """Take over rows that have been read in a cache of their own, left-padded there as here.

        Args:
            cache: Of a model's pass over them, with all layers keeping every column.
            lengths: Of the new rows.
            room: Columns that will still be written.
        """
        width, kept = max(lengths), self.end - self.start
        columns, rows = max(width, kept), len(self.lengths)
        if not self._fits(rows + len(lengths), columns, room):
            self._move(rows + len(lengths), columns, room, cache)
        for own, new in zip(self.layers, cache.layers, strict=True):
            place = slice(self.end - width, self.end)
            own.keys[rows : rows + len(lengths), :, place] = new.keys[:, :, new.keys.shape[2] - width :]
            own.values[rows : rows + len(lengths), :, place] = new.values[:, :, new.values.shape[2] - width :]
        self.lengths += lengths
        self.start = self.end - max(self.lengths)

    def advance(self) -> None:
        """Keep the column that a step has written."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def leave(self, row: int) -> None:
        """Give up a row; the last one takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            place = slice(self.end - self.lengths[last], self.end)
            for layer in self.layers:
                layer.keys[row, :, place] = layer.keys[last, :, place]
                layer.values[row, :, place] = layer.values[last, :, place]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        if self.lengths:
            self.start = self.end - max(self.lengths)
        else:
            self.start, self.end, self.layers = 0, 0, []

    def _fits(self, rows: int, columns: int, room: int) -> bool:
        if not self.layers:
            return False
        held = self.layers[0].keys.shape
        return rows <= held[0] and self.end >= columns and self.end + room <= held[2]

    def _move(self, rows: int, columns: int, room: int, like: DynamicCache) -> None:
        """Make tensors for so many rows and columns, and move what is kept to the end of the first `columns`."""
        kept, before = self.end - self.start, self.layers
        self.layers = [_Layer(self, layer.keys, layer.values, rows, columns + room + _SPARE) for layer in like.layers]
        for old, new in zip(before, self.layers, strict=False):
            held = slice(0, len(self.lengths))
            new.keys[held, :, columns - kept : columns] = old.keys[held, :, self.start : self.end]
            new.values[held, :, columns - kept : columns] = old.values[held, :, self.start : self.end]
        self.start, self.end = columns - kept, columns


class _Layer(CacheLayerMixin):
    """The keys and values of one layer, [rows, heads, columns, width]. What is not in use is finite: it is masked."""

    is_sliding = False

    def __init__(self, rows: Rows, keys: Tensor, values: Tensor, held: int, columns: int) -> None:
        super().__init__()
        self._rows = rows
        self.keys = keys.new_zeros(held, keys.shape[1], columns, keys.shape[3])
        self.values = values.new_zeros(held, values.shape[1], columns, values.shape[3])
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: it is made with its tensors."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new column of each row; everything in the window, with it."""
        rows, start, end = len(self._rows.lengths), self._rows.start, self._rows.end
        until = end + key_states.shape[2]
        self.keys[:rows, :, end:until] = key_states
        self.values[:rows, :, end:until] = value_states
        return self.keys[:rows, :, start:until], self.values[:rows, :, start:until]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what `update` will return."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in the window."""
        return self._rows.end - self._rows.start

    def get_max_length(self) -> int:
        """None is set."""
        return -1
