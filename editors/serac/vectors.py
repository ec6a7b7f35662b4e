"""Unit vectors, kept once: a matrix that only grows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_FIRST_CHUNK = 64
_LARGEST_CHUNK = 16_384


class Vectors:
    """Rows numbered from 0 in the order they came.

    A row never changes and never moves, so another thread may read the rows that were there when it was told of them.

    Args:
        width: Numbers in a row.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._chunks: list[NDArray[np.float32]] = []
        self._starts: list[int] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, rows: NDArray[np.float32]) -> int:
        """Add rows [n, width]; returns the number of the first."""
        first = self._length
        while len(rows):
            room = self._room()
            taken = min(len(room), len(rows))
            room[:taken] = rows[:taken]
            self._length += taken
            rows = rows[taken:]
        return first

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of these rows, [len(numbers), width]."""
        chunks = np.searchsorted(self._starts, numbers, side="right") - 1
        taken = np.empty((len(numbers), self.width), dtype=np.float32)
        for chunk in np.unique(chunks):
            here = chunks == chunk
            taken[here] = self._chunks[chunk][numbers[here] - self._starts[chunk]]
        return taken

    def blocks(self, start: int = 0) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The rows from `start` on in contiguous blocks, each with its first row's number; not to be written to."""
        for first, chunk in zip(self._starts, self._chunks, strict=True):
            used = chunk[max(start - first, 0) : self._length - first]
            if len(used):
                yield max(start, first), used

    def copy(self) -> Vectors:
        """The same rows, to which others can be added; full chunks are shared, since rows do not change."""
        other = Vectors(self.width)
        other._chunks, other._starts, other._length = list(self._chunks), list(self._starts), self._length
        if other._chunks:
            last = other._chunks[-1] = np.empty_like(self._chunks[-1])  # what is not used is never touched
            used = self._length - self._starts[-1]
            last[:used] = self._chunks[-1][:used]
        return other

    def _room(self) -> NDArray[np.float32]:
        """The unused end of the last chunk; of a new one when that is full."""
        end = self._starts[-1] + len(self._chunks[-1]) if self._chunks else 0
        if self._length == end:
            self._starts.append(end)
            self._chunks.append(np.empty((min(max(_FIRST_CHUNK, end), _LARGEST_CHUNK), self.width), dtype=np.float32))
        return self._chunks[-1][self._length - self._starts[-1] :]
