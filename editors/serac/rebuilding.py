"""An index that is built anew beside its use: when it has outgrown its kind, its tail, or its removed rows."""

from __future__ import annotations

import logging
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editors.serac.index import FlatIndex, Found

_log = logging.getLogger(__name__)


class RebuildingIndex:
    """Serves the old index while a thread builds the new one; what changes meanwhile is done again on the new one.

    Not thread-safe: the new index takes its place in a call of the owner's.

    Args:
        index: To begin with.
        builder: Where new ones are built; in the call that finds the need when None.
    """

    def __init__(self, index: FlatIndex, *, builder: Executor | None = None) -> None:
        self._index = index
        self._builder = builder
        self._building: Future[FlatIndex] | None = None
        self._given_up = False
        self._changed: set[int] = set()

    def __len__(self) -> int:
        """Rows that can be found."""
        return len(self._index)

    @property
    def stored(self) -> int:
        """Rows held, with those that were removed."""
        return self._index.stored

    def add(self, key: int, vectors: NDArray[np.float32]) -> None:
        """Add the rows [n, width] of a key that is not there."""
        self._index.add(key, vectors)
        self._note(key)

    def remove(self, key: int) -> None:
        """Remove the rows of a key that is there."""
        self._index.remove(key)
        self._note(key)

    def vectors(self, key: int) -> NDArray[np.float32]:
        """A copy of the rows of a key, [n, width]."""
        return self._index.vectors(key)

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """The k nearest rows of each query, as far as the index of the moment finds them."""
        return self._index.search(queries, k)

    def keep_up(self) -> None:
        """Take over what has been built; have it built when there is need."""
        if self._building is not None:
            if self._building.done():
                self._finish(self._building)
        elif self._index.worn and not self._given_up:
            if self._builder is None:
                self._index = self._index.rebuilt()
            else:
                self._building = self._builder.submit(self._index.copy().rebuilt)

    def copy(self) -> RebuildingIndex:
        """The same rows, which can be changed on their own; the vectors are shared."""
        return RebuildingIndex(self._index.copy(), builder=self._builder)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything it holds, for `FlatIndex.from_arrays`."""
        return self._index.arrays()

    def _note(self, key: int) -> None:
        if self._building is not None:
            self._changed.add(key)

    def _finish(self, building: Future[FlatIndex]) -> None:
        error = building.exception()
        if error is None:
            self._take_over(building.result())
        else:
            _log.error("The index could not be built anew; the old one serves on, slower.", exc_info=error)
            self._given_up = True
        self._building = None
        self._changed.clear()

    def _take_over(self, new: FlatIndex) -> None:
        for key in sorted(self._changed):
            if key in new:
                new.remove(key)
            if key in self._index:
                new.add(key, self._index.vectors(key))
        self._index = new
