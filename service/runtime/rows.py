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
        joined, place = slice(rows, rows + len(lengths)), slice(self.end - width, self.end)
        for (keys, values), (new_keys, new_values) in zip(_held(self), _held(cache), strict=True):
            keys[joined, :, place] = new_keys
            values[joined, :, place] = new_values
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
            for keys, values in _held(self):
                keys[row, :, place] = keys[last, :, place]
                values[row, :, place] = values[last, :, place]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        if self.lengths:
            self.start = self.end - max(self.lengths)
        else:
            self.start, self.end, self.layers = 0, 0, []

    def _fits(self, rows: int, columns: int, room: int) -> bool:
        if not self.layers:
            return False
        keys, _ = _held(self)[0]
        return rows <= keys.shape[0] and self.end >= columns and self.end + room <= keys.shape[2]

    def _move(self, rows: int, columns: int, room: int, like: DynamicCache) -> None:
        """Make tensors for so many rows and columns, and move what is kept to the end of the first `columns`."""
        before, width = _held(self), columns + room + _SPARE
        self.layers = [_Layer(self, keys, values, rows, width) for keys, values in _held(like)]
        kept, held = self.end - self.start, slice(0, len(self.lengths))
        for (keys, values), (new_keys, new_values) in zip(before, _held(self), strict=False):
            new_keys[held, :, columns - kept : columns] = keys[held, :, self.start : self.end]
            new_values[held, :, columns - kept : columns] = values[held, :, self.start : self.end]
        self.start, self.end = columns - kept, columns


class _Layer(CacheLayerMixin):
    """The keys and values of one layer, [rows, heads, columns, width]. What is not in use is finite: it is masked."""

    is_sliding = False

    def __init__(self, rows: Rows, keys: Tensor, values: Tensor, held: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rows = rows
        self.keys = self._keys = keys.new_zeros(held, keys.shape[1], columns, keys.shape[3])
        self.values = self._values = values.new_zeros(held, values.shape[1], columns, values.shape[3])
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: it is made with its tensors."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new column of each row; everything in the window, with it."""
        rows, start, end = len(self._rows.lengths), self._rows.start, self._rows.end
        until = end + key_states.shape[2]
        self._keys[:rows, :, end:until] = key_states
        self._values[:rows, :, end:until] = value_states
        return self._keys[:rows, :, start:until], self._values[:rows, :, start:until]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what `update` will return."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in the window."""
        return self._rows.end - self._rows.start

    def get_max_length(self) -> int:
        """None is set."""
        return -1


def _held(cache: Cache) -> list[tuple[Tensor, Tensor]]:
    """The keys and values of each layer."""
    layers: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]
