"""The edit memory: the descriptors in force, their embeddings, and a FAISS index over them.

It knows nothing of where edits are kept or who asked for them. FAISS must not search while rows come or go, so the
memory has one owner: it is not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from editors.edit import EditDescriptor
from editors.errors import EncoderMismatch

_ROUNDING = 1e-5
"""More than the index and the exact similarities can differ by; rows this close to the cut are looked at as well."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MemoryEntry:
    """One edit in the memory.

    Attributes:
        descriptor: What it says.
        in_scope: Texts it must answer, at least one; the first is the descriptor's own.
        out_of_scope: Texts it must leave alone.
        vectors: Their unit embeddings in that order, float32 [len(in_scope) + len(out_of_scope), width].
        threshold: Beta at or above which it answers; the caller's default when None.

    Raises:
        EncoderMismatch: There is not one vector for each text.
        ValueError: There is no in-scope text.
    """

    descriptor: EditDescriptor
    in_scope: tuple[str, ...]
    out_of_scope: tuple[str, ...]
    vectors: NDArray[np.float32]
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not self.in_scope:
            raise ValueError("an entry needs at least one in-scope text, the descriptor's own")
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

    Args:
        width: Numbers in an embedding.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._entries: dict[int, MemoryEntry] = {}
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
        self._edit_of_row: dict[int, int] = {}  # FAISS takes a row id twice without a word, so each row has its own
        self._rows_of_edit: dict[int, list[int]] = {}
        self._next_row = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, edit_id: object) -> bool:
        return edit_id in self._entries

    @property
    def rows(self) -> int:
        """Texts in the index."""
        return int(self._index.ntotal)

    def get(self, edit_id: int) -> MemoryEntry | None:
        """The edit of that id, or None."""
        return self._entries.get(edit_id)

    def put(self, edit_id: int, entry: MemoryEntry) -> None:
        """Add an edit, or replace the one of that id.

        Raises:
            EncoderMismatch: Its vectors have another width; the memory is as it was.
        """
        if entry.vectors.shape[1] != self.width:
            raise EncoderMismatch(
                f"Edit {edit_id} has embeddings of width {entry.vectors.shape[1]}; the memory's are {self.width} wide.",
                hint="They come from another encoder: embed its texts again.",
            )
        self.remove(edit_id)
        in_scope = np.ascontiguousarray(entry.vectors[: len(entry.in_scope)], dtype=np.float32)
        rows = list(range(self._next_row, self._next_row + len(in_scope)))
        self._index.add_with_ids(in_scope, np.array(rows, dtype=np.int64))
        self._next_row += len(rows)
        self._entries[edit_id] = entry
        self._rows_of_edit[edit_id] = rows
        self._edit_of_row |= dict.fromkeys(rows, edit_id)

    def remove(self, edit_id: int) -> None:
        """Forget an edit; nothing happens when it is not there, so a replay may repeat itself."""
        if edit_id not in self._entries:
            return
        rows = self._rows_of_edit.pop(edit_id)
        self._index.remove_ids(faiss.IDSelectorBatch(np.array(rows, dtype=np.int64)))
        for row in rows:
            del self._edit_of_row[row]
        del self._entries[edit_id]

    def search(
        self, queries: NDArray[np.float32], k: int, *, skip: Callable[[int], bool] | None = None
    ) -> list[list[Retrieved]]:
        """The k nearest edits of each query, nearest first, equally near ones by id.

        Args:
            queries: Unit vectors, float32 [n, width].
            k: Edits for each query; fewer come back when the memory holds fewer.
            skip: Edits to leave out; they take no place among the k.

        Raises:
            EncoderMismatch: The queries have another width.
        """
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise EncoderMismatch(
                f"Queries of shape {queries.shape} do not fit a memory {self.width} wide.",
                hint="Embed them with the encoder that embedded the edits.",
            )
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        wanted = {edit_id for edit_id in self._entries if skip is None or not skip(edit_id)}
        near = self._near(queries, k, wanted)
        return [self._rank(query, edits)[:k] for query, edits in zip(queries, near, strict=True)]

    def _near(self, queries: NDArray[np.float32], k: int, wanted: set[int]) -> list[set[int]]:
        """For each query a superset of its k nearest wanted edits.

        An edit may fill many rows, so more are fetched until the k-th edit is clear of the last row by more than
        rounding: then no edit beyond the last row can belong to the k, however the index broke ties.
        """
        near: list[set[int]] = [set() for _ in queries]
        pending = np.arange(len(queries) if wanted else 0)
        fetch = 2 * k
        while len(pending):
            fetch = min(fetch, self.rows)
            scores, rows = self._index.search(queries[pending], fetch)
            unsettled = []
            for query, row_scores, row_ids in zip(pending, scores, rows, strict=True):
                best = self._best_scores(row_scores, row_ids, wanted)
                near[query] = set(best)
                settled = len(best) >= k and list(best.values())[k - 1] > row_scores[-1] + _ROUNDING
                if not settled and fetch < self.rows:
                    unsettled.append(query)
            pending = np.array(unsettled, dtype=np.int64)
            fetch *= 2
        return near

    def _best_scores(self, scores: NDArray[np.float32], rows: NDArray[np.int64], wanted: set[int]) -> dict[int, float]:
        """The score of the nearest row of each wanted edit, nearest first."""
        best: dict[int, float] = {}
        for score, row in zip(scores.tolist(), rows.tolist(), strict=True):
            if (edit_id := self._edit_of_row[row]) in wanted:
                best.setdefault(edit_id, score)
        return best

    def _rank(self, query: NDArray[np.float32], edit_ids: set[int]) -> list[Retrieved]:
        found = [_compare(edit_id, self._entries[edit_id], query) for edit_id in edit_ids]
        return sorted(found, key=lambda r: (-r.similarity, r.edit_id))


def _compare(edit_id: int, entry: MemoryEntry, query: NDArray[np.float32]) -> Retrieved:
    """Compare a query with an edit's own texts.

    Each row is summed by itself in float64, so equal vectors have equal similarities whatever stands beside them.
    """
    similarities = np.multiply(entry.vectors, query, dtype=np.float64).sum(axis=1)  # [n_in + n_out]
    inside, outside = np.split(similarities, [len(entry.in_scope)])
    nearest = int(inside.argmax())
    return Retrieved(
        edit_id=edit_id,
        similarity=float(inside[nearest]),
        matched_text=entry.in_scope[nearest],
        excluded=bool((outside >= inside[nearest]).any()),
    )
