"""Pairs of an input and an edit that it is near to and not about: what a memory of many edits finds for it.

An input that one edit settles is out of the scope of an edit about another subject. As in the paper (Mitchell et al.
2022, app. D) such edits are found by the cosine of sentence embeddings; unlike there, the first ranks are taken as
well, since the service judges those. Where one text names the subject of the other, they are left out: the edit may
then settle the input after all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from random import Random

import faiss
import numpy as np
from numpy.typing import NDArray

from demo.scope.kinds import Pair
from editors.serac.encoder import SentenceEncoder

_RANKS = 40
"""Nearest edits that are looked at for an input, most of which are about its own subject or named by it."""
_TAKEN = 8
"""Of those that are left, as many are drawn from."""
_ENCODED = 2048


class NearestPairs:
    """Draws pairs of an input and a near edit about another subject.

    Args:
        known: In-scope pairs, whose edits and inputs are put together anew.
    """

    def __init__(self, known: Sequence[Pair]) -> None:
        self._known = known

    def out_of_scope(self, rng: Random) -> Pair | None:
        """An input, and one of the edits nearest to it; None where all of those are left out."""
        i = rng.randrange(len(self._known))
        asked = self._known[i]
        edits = [edit for edit in (self._known[j] for j in self._nearest[i]) if _apart(edit, asked)]
        if not edits:
            return None
        edit = rng.choice(edits[:_TAKEN])
        return Pair(edit.descriptor, asked.input, label=False, kind="nearest", subject=edit.subject)

    @cached_property
    def _nearest(self) -> NDArray[np.int64]:
        """For each pair's input, the pairs whose descriptors are nearest, [pairs, ranks]; each descriptor once."""
        first = {pair.descriptor: i for i, pair in reversed(list(enumerate(self._known)))}
        encoder = SentenceEncoder()
        index = faiss.IndexFlatIP(encoder.width)
        index.add(_vectors(encoder, list(first)))
        inputs = _vectors(encoder, [pair.input for pair in self._known])
        _, found = index.search(inputs, min(_RANKS, len(first)))
        return np.array(list(first.values()))[found]


def _apart(edit: Pair, asked: Pair) -> bool:
    """Whether two texts are about different subjects, and neither names the other's beside its own."""
    ours, theirs = edit.subject.casefold(), asked.subject.casefold()
    return ours != theirs and not _names(edit.descriptor, ours, theirs) and not _names(asked.input, theirs, ours)


def _names(text: str, own: str, other: str) -> bool:
    rest = text.casefold().replace(own, " ")
    return re.search(rf"\b{re.escape(other.removeprefix('the '))}\b", rest) is not None


def _vectors(encoder: SentenceEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    return np.concatenate([encoder.encode(texts[at : at + _ENCODED]) for at in range(0, len(texts), _ENCODED)])
