"""The edit memory: the descriptors in force, and an index over the embeddings of their texts.

It knows nothing of where edits are kept or who asked for them. An index must not be searched while rows come or go, so
the memory has one owner: it is not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editors.edit import EditDescriptor
from editors.errors import EncoderMismatch
from editors.serac.index import FLAT_ROWS, FlatIndex
from editors.serac.rebuilding import RebuildingIndex

_ROUNDING = 1e-5
"""More than the index and the exact similarities can differ by; rows this close to the cut are looked at as well."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EditTexts:
    """What an edit says, and where.

    Attributes:
        descriptor: What it says.
        in_scope: Texts it must answer, at least one; the first is the descriptor's own.
        out_of_scope: Texts it must leave alone.
        threshold: Beta at or above which it answers; the caller's default when None.

    Raises:
        ValueError: There is no in-scope text.
    """

    descriptor: EditDescriptor
    in_scope: tuple[str, ...]
    out_of_scope: tuple[str, ...]
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not self.in_scope:
            raise ValueError("an entry needs at least one in-scope text, the descriptor's own")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MemoryEntry(EditTexts):
    """An edit and the embeddings of its texts.

    Attributes:
        vectors: Unit embeddings of the in-scope texts, then of the others, float32 [texts, width].

    Raises:
        EncoderMismatch: There is not one vector for each text.
        ValueError: There is no in-scope text.
    """

    vectors: NDArray[np.float32]

    def __post_init__(self) -> None:
        EditTexts.__post_init__(self)
        texts = len(self.in_scope) + len(self.out_of_scope)
        if self.vectors.ndim != 2 or len(self.vectors) != texts:
            raise EncoderMismatch(
                f"An edit of {texts} texts came with vectors of shape {self.vectors.shape}.",
                hint="Embed its texts again, one vector for each.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """An edit near a query.

    Attributes:
        similarity: Cosine between the query and the edit's nearest in-scope text.
        matched_text: That text.
        excluded: Whether one of its out-of-scope texts is at least as near.
    """

    edit_id: int
    similarity: float
    matched_text: str
    excluded: bool


class EditMemory:
    """The edits in force, searchable by embedding.

    What a search returns depends on the edits present alone, not on the order in which they came or on edits that left.
    Beyond `flat_rows` in-scope texts that holds as far as the approximate index finds what is near; similarities and
    exclusions of what it finds are exact.

    Args:
        width: Numbers in an embedding.
        flat_rows: In-scope texts up to which every one is compared with.
        builder: Where larger indexes are built while the old one serves; in the search that needs one when None.
    """

    def __init__(self, width: int, *, flat_rows: int = FLAT_ROWS, builder: Executor | None = None) -> None:
        self.width = width
        self._texts: dict[int, EditTexts] = {}
        self._outside: dict[int, NDArray[np.float32]] = {}  # of edits that have out-of-scope texts
        self._index = RebuildingIndex(FlatIndex(width, flat_rows=flat_rows), builder=builder)

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, edit_id: object) -> bool:
        return edit_id in self._texts

    @property
    def rows(self) -> int:
        """Texts in the index."""
        return len(self._index)

    @property
    def texts(self) -> Mapping[int, EditTexts]:
        """What each edit says, by its id."""
        return self._texts

    def get(self, edit_id: int) -> MemoryEntry | None:
        """The edit of that id, or None."""
        texts = self._texts.get(edit_id)
        if texts is None:
            return None
        return MemoryEntry(
            descriptor=texts.descriptor,
            in_scope=texts.in_scope,
            out_of_scope=texts.out_of_scope,
            threshold=texts.threshold,
            vectors=self._vectors(edit_id),
        )

    def put(self, edit_id: int, entry: MemoryEntry) -> None:
        """Add an edit, or replace the one of that id; its vectors are copied.

        Raises:
            EncoderMismatch: Its vectors have another width; the memory is as it was.
        """
        if entry.vectors.shape[1] != self.width:
            raise EncoderMismatch(
                f"Edit {edit_id} has embeddings of width {entry.vectors.shape[1]}; the memory's are {self.width} wide.",
                hint="They come from another encoder: embed its texts again.",
            )
        self.remove(edit_id)
        inside, outside = np.split(entry.vectors, [len(entry.in_scope)])
        self._index.add(edit_id, inside)
        if len(outside):
            self._outside[edit_id] = outside.astype(np.float32)
        self._texts[edit_id] = EditTexts(
            descriptor=entry.descriptor,
            in_scope=entry.in_scope,
            out_of_scope=entry.out_of_scope,
            threshold=entry.threshold,
        )

    def remove(self, edit_id: int) -> None:
        """Forget an edit; nothing happens when it is not there, so a replay may repeat itself."""
        if edit_id in self._texts:
            self._index.remove(edit_id)
            self._outside.pop(edit_id, None)
            del self._texts[edit_id]

    def search(
        self, queries: NDArray[np.float32], k: int, *, skip: Callable[[int], bool] | None = None
    ) -> list[list[Retrieved]]:
        """The k nearest edits of each query, nearest first, equally near ones by id.

        Args:
            queries: Unit vectors, float32 [n, width]; or [n, m, width], of queries that have several vectors: the
                nearest counts, and rows of zeros stand for none.
            k: Edits for each query; fewer come back when the memory holds fewer, or an approximate index finds fewer.
            skip: Edits to leave out; they take no place among the k.

        Raises:
            EncoderMismatch: The queries have another width.
        """
        if queries.ndim == 3:
            return self._search_any(queries, k, skip)
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise EncoderMismatch(
                f"Queries of shape {queries.shape} do not fit a memory {self.width} wide.",
                hint="Embed them with the encoder that embedded the edits.",
            )
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        self._index.keep_up()
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        near = self._near(queries, k, skip)
        return [self._rank(query, edits)[:k] for query, edits in zip(queries, near, strict=True)]

    def _search_any(
        self, queries: NDArray[np.float32], k: int, skip: Callable[[int], bool] | None
    ) -> list[list[Retrieved]]:
        """The k nearest edits of queries of several vectors, each by the nearest of these."""
        near: list[dict[int, Retrieved]] = [{} for _ in queries]
        owners, places = np.nonzero(queries.any(axis=2))
        for owner, found in zip(owners, self.search(queries[owners, places], k, skip=skip), strict=True):
            for one in found:
                known = near[owner].get(one.edit_id)
                if known is None or one.similarity > known.similarity:
                    near[owner][one.edit_id] = one
        return [_ranked(edits.values())[:k] for edits in near]

    def copy(self) -> EditMemory:
        """The same edits, in a memory that can be changed on its own; the vectors are shared."""
        other = EditMemory(self.width)
        other._texts, other._outside, other._index = dict(self._texts), dict(self._outside), self._index.copy()
        return other

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The embeddings and their index, for `restored`. Takes long for a large memory."""
        if not self._outside:
            return self._index.arrays()
        keys = np.repeat(list(self._outside), [len(vectors) for vectors in self._outside.values()])
        return self._index.arrays() | {"outside": np.concatenate(list(self._outside.values())), "outside_keys": keys}

    @classmethod
    def restored(
        cls,
        arrays: dict[str, NDArray[Any]],
        texts: Mapping[int, EditTexts],
        width: int,
        *,
        flat_rows: int = FLAT_ROWS,
        builder: Executor | None = None,
    ) -> EditMemory:
        """A memory of these edits, whose embeddings are among the `arrays`; others among them are left out.

        Raises:
            ValueError, KeyError: The arrays do not hold these edits, or do not belong together.
        """
        index = FlatIndex.from_arrays(arrays, width, flat_rows=flat_rows)
        for gone in index.keys() - texts.keys():
            index.remove(gone)
        memory = cls(width)
        memory._texts, memory._index = dict(texts), RebuildingIndex(index, builder=builder)
        if "outside" in arrays:
            owners, starts = np.unique(arrays["outside_keys"], return_index=True)
            parts = np.split(arrays["outside"], np.sort(starts)[1:])  # an edit's are neighbours
            outside = dict(zip(owners[np.argsort(starts)].tolist(), parts, strict=True))
            memory._outside = {edit_id: outside[edit_id] for edit_id, edit in texts.items() if edit.out_of_scope}
        memory._check()
        return memory

    def _check(self) -> None:
        """Refuse to be put together from parts that do not fit."""
        inside = sum(len(edit.in_scope) for edit in self._texts.values())
        outside = sum(len(edit.out_of_scope) for edit in self._texts.values())
        if inside != self.rows or outside != sum(map(len, self._outside.values())):
            raise ValueError("the edits have other texts than the embeddings")

    def _vectors(self, edit_id: int) -> NDArray[np.float32]:
        """The embeddings of an edit's texts, [n_in + n_out, width]."""
        inside = self._index.vectors(edit_id)
        return np.concatenate([inside, self._outside[edit_id]]) if edit_id in self._outside else inside

    def _near(self, queries: NDArray[np.float32], k: int, skip: Callable[[int], bool] | None) -> list[list[int]]:
        """For each query a superset of its k nearest edits that are not skipped.

        An edit may fill many rows, so more are fetched until the k-th edit is clear of the last row by more than
        rounding: then no edit beyond the last row can belong to the k, however the index broke ties.
        """
        near: list[list[int]] = [[] for _ in queries]
        pending = np.arange(len(queries) if self._texts else 0)
        fetch = 2 * k
        while len(pending):
            fetch = min(fetch, self._index.stored)
            unsettled = []
            for query, scores, keys in zip(pending, *self._index.search(queries[pending], fetch), strict=True):
                best = _best_scores(scores, keys, skip)
                kth = list(best.values())[k - 1] if len(best) >= k else -np.inf
                near[query] = [edit_id for edit_id, score in best.items() if score >= kth - _ROUNDING]
                everything = fetch == self._index.stored or scores[-1] == -np.inf
                if not everything and kth <= scores[-1] + _ROUNDING:
                    unsettled.append(query)
            pending = np.array(unsettled, dtype=np.int64)
            fetch *= 2
        return near

    def _rank(self, query: NDArray[np.float32], edit_ids: list[int]) -> list[Retrieved]:
        found = [_compare(edit_id, self._texts[edit_id], self._vectors(edit_id), query) for edit_id in edit_ids]
        return _ranked(found)


def _ranked(found: Iterable[Retrieved]) -> list[Retrieved]:
    """Nearest first, equally near ones by id."""
    return sorted(found, key=lambda r: (-r.similarity, r.edit_id))


def _best_scores(
    scores: NDArray[np.float32], keys: NDArray[np.int64], skip: Callable[[int], bool] | None
) -> dict[int, float]:
    """The score of the nearest row of each edit that is neither gone nor skipped, nearest first."""
    best: dict[int, float] = {}
    for score, edit_id in zip(scores.tolist(), keys.tolist(), strict=True):
        if edit_id >= 0 and edit_id not in best and not (skip and skip(edit_id)):
            best[edit_id] = score
    return best


def _compare(edit_id: int, texts: EditTexts, vectors: NDArray[np.float32], query: NDArray[np.float32]) -> Retrieved:
    """Compare a query with an edit's own texts.

    Each row is summed by itself in float64, so equal vectors have equal similarities whatever stands beside them.
    """
    similarities = np.multiply(vectors, query, dtype=np.float64).sum(axis=1)  # [n_in + n_out]
    inside, outside = np.split(similarities, [len(texts.in_scope)])
    nearest = int(inside.argmax())
    return Retrieved(
        edit_id=edit_id,
        similarity=float(inside[nearest]),
        matched_text=texts.in_scope[nearest],
        excluded=bool((outside >= inside[nearest]).any()),
    )
