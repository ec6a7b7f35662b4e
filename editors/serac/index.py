"""Indexes over unit vectors: rows under the number of the edit they belong to, found by inner product.

`FlatIndex` compares a query with every row. Above `FLAT_ROWS` that takes longer than the rest of a decision, and
`ApproximateIndex` looks only into the cells nearest to the query (an inverted file of 8-bit codes: Jegou et al. 2011,
with scalar codes). Both hold each vector once at full precision and return exact inner products. What is approximate
is which rows are looked at: a near row is missed when its cell is not among those visited. Rows added since an
approximate index was built are compared one by one, so no recent row is ever missed.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from editors.serac.vectors import Vectors

FLAT_ROWS = 32_768
"""More rows than this are found by codes. Comparing with 100,000 rows reads 150 MB a query: 10 to 30 ms."""
_REMOVED = -1
_CELLS_VISITED = 32
_FETCHED = 4
"""Rows looked up by their codes for each one wanted."""
_ROWS_PER_CELL = 32
"""Rows that k-means learns a cell from."""
_SEED = 0

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""For each query the inner products, highest first, and the keys of the rows. A removed row has key -1, and so has a
place beyond the last row found, whose inner product is -inf."""


class FlatIndex:
    """Compares a query with every row.

    Args:
        width: Numbers in a vector.
        flat_rows: Rows that are compared one by one at most; with more, `worn` asks for an approximate index.
    """

    def __init__(self, width: int, *, flat_rows: int = FLAT_ROWS) -> None:
        self.width = width
        self.flat_rows = flat_rows
        self._vectors = Vectors(width)
        self._keys = np.empty(0, dtype=np.int64)  # of each row, with room to grow; the rows of a key are neighbours
        self._there = np.empty(0, dtype=np.bool_)  # whether each row was not removed
        self._sorted = 0  # rows that lie in the order of their keys, as building leaves them
        self._first: dict[int, int] = {}  # the first row of each key beyond those
        self._live = 0

    def __len__(self) -> int:
        """Rows that can be found."""
        return self._live

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self._find(key) is not None

    def keys(self) -> set[int]:
        """The keys that can be found."""
        return set(self._keys[: self.stored][self._there[: self.stored]].tolist())

    @property
    def stored(self) -> int:
        """Rows held, with those that were removed."""
        return len(self._vectors)

    @property
    def worn(self) -> bool:
        """Whether building it anew would make it quicker, or smaller."""
        return self.stored > self.flat_rows or self._full_of_holes

    def add(self, key: int, vectors: NDArray[np.float32]) -> None:
        """Add the rows [n, width] of a key that is not there; n is at least 1."""
        first = self._vectors.append(vectors)
        if self.stored > len(self._keys):
            room = max(64, len(self._keys), len(vectors))
            self._keys = np.concatenate([self._keys, np.full(room, _REMOVED)])
            self._there = np.concatenate([self._there, np.zeros(room, dtype=np.bool_)])
        self._keys[first : self.stored] = key
        self._there[first : self.stored] = True
        self._first[key] = first
        self._live += len(vectors)

    def remove(self, key: int) -> None:
        """Remove the rows of a key that is there."""
        rows = self._rows(key)
        self._first.pop(key, None)
        self._there[rows] = False
        self._live -= len(rows)

    def vectors(self, key: int) -> NDArray[np.float32]:
        """A copy of the rows of a key, [n, width]."""
        return self._vectors.take(self._rows(key))

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """The k nearest rows of each query [n, width], removed ones among them: [n, k] and [n, k]."""
        scores, rows = self._compare(queries, k, start=0)
        return scores, self._keys_of(rows)

    def copy(self) -> FlatIndex:
        """The same rows, which can be changed on their own; the vectors are shared."""
        other = FlatIndex(self.width, flat_rows=self.flat_rows)
        self._share(other)
        return other

    def rebuilt(self) -> FlatIndex:
        """An index of the rows that were not removed, flat or approximate as suits their number.

        It depends on the keys and vectors alone, not on the order in which they came. Slow; another thread may do it
        on a copy.
        """
        live = np.flatnonzero(self._there[: self.stored])
        order = live[np.argsort(self._keys[live], kind="stable")]
        coded = len(order) > self.flat_rows
        new = (ApproximateIndex if coded else FlatIndex)(self.width, flat_rows=self.flat_rows)
        if np.array_equal(order, np.arange(self.stored)):
            new._vectors = self._vectors.copy()  # shares them
        else:
            for start in range(0, len(order), self.flat_rows):
                new._vectors.append(self._vectors.take(order[start : start + self.flat_rows]))
        new._own(self._keys[order], np.ones(len(order), dtype=np.bool_), len(order))
        new._encode()
        return new

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything it holds, for `from_arrays`."""
        blocks = [block for _, block in self._vectors.blocks()]
        return {f"vectors_{i}": block for i, block in enumerate(blocks)} | {
            "keys": self._keys[: self.stored],
            "there": self._there[: self.stored],
            "sorted": np.array(self._sorted),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], width: int, *, flat_rows: int = FLAT_ROWS) -> FlatIndex:
        """The index whose `arrays` these are, flat or approximate.

        Raises:
            ValueError, KeyError: They do not belong together.
        """
        new = (ApproximateIndex if "codes" in arrays else FlatIndex)(width, flat_rows=flat_rows)
        for i in range(sum(name.startswith("vectors_") for name in arrays)):
            new._vectors.append(arrays[f"vectors_{i}"])
        if not len(arrays["keys"]) == len(arrays["there"]) == new.stored:
            raise ValueError(f"{new.stored} vectors came with {len(arrays['keys'])} keys")
        new._own(arrays["keys"], arrays["there"], int(arrays["sorted"]))
        new._restore(arrays)
        return new

    @property
    def _full_of_holes(self) -> bool:
        return self.stored - self._live > max(1024, self.stored // 4)

    def _encode(self) -> None:
        """Prepare to search the rows at hand; a flat index has nothing to prepare."""

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """As `_encode`, from what `arrays` kept."""

    def _rows(self, key: int) -> NDArray[np.int64]:
        first = self._find(key)
        if first is None:
            raise KeyError(key)
        end = first
        while end < self.stored and self._keys[end] == key:
            end += 1
        return np.arange(first, end)

    def _find(self, key: int) -> int | None:
        """The first row of a key, or None."""
        if key in self._first:
            return self._first[key]
        row = int(np.searchsorted(self._keys[: self._sorted], key))
        return row if row < self._sorted and self._keys[row] == key and self._there[row] else None

    def _keys_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.stored:
            return rows
        keys: NDArray[np.int64] = np.where((rows >= 0) & self._there[rows], self._keys[rows], _REMOVED)
        return keys

    def _compare(self, queries: NDArray[np.float32], k: int, *, start: int) -> Found:
        """The k nearest of the rows from `start` on, by their numbers."""
        parts = [_nothing(len(queries), k)]
        for first, block in self._vectors.blocks(start):
            scores, rows = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
            parts.append((scores, rows + first))
        return _best(parts, k)

    def _own(self, keys: NDArray[np.int64], there: NDArray[np.bool_], in_order: int) -> None:
        """Say whose the stored rows are, which were not removed, and how many lie in the order of their keys."""
        self._keys, self._there, self._sorted = keys.astype(np.int64), there.astype(np.bool_), in_order
        later = np.flatnonzero(self._there[in_order:]) + in_order
        owners, first = np.unique(self._keys[later], return_index=True)
        self._first = dict(zip(owners.tolist(), later[first].tolist(), strict=True))
        self._live = int(self._there.sum())

    def _share(self, other: FlatIndex) -> None:
        other._vectors, other._keys, other._there = self._vectors.copy(), self._keys.copy(), self._there.copy()
        other._sorted, other._first, other._live = self._sorted, dict(self._first), self._live


class ApproximateIndex(FlatIndex):
    """Looks into the cells nearest to a query, and compares it with every row that came after the cells were made."""

    def __init__(self, width: int, *, flat_rows: int = FLAT_ROWS) -> None:
        super().__init__(width, flat_rows=flat_rows)
        self._cells: Any = None
        self._coded = 0

    @property
    def worn(self) -> bool:
        """Whether building it anew would make it quicker, or smaller."""
        return self.stored - self._coded > self.flat_rows // 4 or self._full_of_holes

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """Nearly the k nearest rows of each query [n, width], removed ones among them: [n, k] and [n, k]."""
        coded = self._look_up(queries, k)
        scores, rows = _best([coded, self._compare(queries, k, start=self._coded)], k)
        return scores, self._keys_of(rows)

    def copy(self) -> ApproximateIndex:
        """The same rows, which can be changed on their own; vectors and cells are shared."""
        other = ApproximateIndex(self.width, flat_rows=self.flat_rows)
        self._share(other)
        other._cells, other._coded = self._cells, self._coded
        return other

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything it holds, for `from_arrays`."""
        return super().arrays() | {"codes": faiss.serialize_index(self._cells)}

    def _look_up(self, queries: NDArray[np.float32], k: int) -> Found:
        """The k nearest rows in the cells visited. Codes round, so more are fetched and compared at full precision."""
        _, rows = self._cells.search(queries, min(_FETCHED * k, self._coded))
        found, places = np.unique(rows, return_inverse=True)
        vectors = self._vectors.take(np.maximum(found, 0))[places.reshape(rows.shape)]  # [n, fetched, width]
        scores = np.einsum("nw,nfw->nf", queries, vectors)
        return _best([_nothing(len(queries), k), (np.where(rows < 0, -np.inf, scores), rows)], k)

    def _encode(self) -> None:
        """Make cells (k-means, seeded) and fill them with 8-bit codes of what is left of each row."""
        count = 2 ** round(np.log2(self.stored) / 2)  # about the root: 256 at 100,000 rows, 1,024 at 1,000,000
        metric, codec = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_8bit
        self._cells = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(self.width), self.width, count, codec, metric)
        self._cells.cp.niter, self._cells.cp.seed = 8, _SEED
        self._cells.cp.min_points_per_centroid = 1
        self._cells.nprobe = _CELLS_VISITED
        taught = min(self.stored, _ROWS_PER_CELL * count)
        sample = np.sort(np.random.default_rng(_SEED).choice(self.stored, taught, replace=False))
        self._cells.train(self._vectors.take(sample))
        for _, block in self._vectors.blocks():
            self._cells.add(block)
        self._cells = faiss.clone_index(self._cells)  # lists that grew have room for up to twice their codes
        self._coded = self.stored

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._cells = faiss.deserialize_index(arrays["codes"])
        self._coded = int(self._cells.ntotal)
        if self._coded > self.stored or self._cells.d != self.width:
            raise ValueError(f"codes of {self._coded} rows came with {self.stored} vectors")


def _nothing(queries: int, k: int) -> Found:
    return np.full((queries, k), -np.inf, dtype=np.float32), np.full((queries, k), -1, dtype=np.int64)


def _best(parts: list[Found], k: int) -> Found:
    """The k highest of several findings for the same queries."""
    scores, rows = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
