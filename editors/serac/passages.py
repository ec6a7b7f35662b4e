"""Long inputs as queries of retrieval: a question is found by its own words, wherever in a long text it stands.

The embedding of a whole text is the mean of all it says, in which one question among much else is lost. So a long input
is searched for with each of its passages besides, and the nearest counts. It is retrieval's business alone: the scope
classifier reads the whole input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LONG = 240
"""Characters up to which an input is one passage; some three sentences."""
_FRAGMENT = 20
"""Characters below which a sentence is none: what an abbreviation leaves, or a greeting."""
_SENTENCE_ENDS = re.compile(r"(?<=[.!?…])\s+|(?<=[\u3002\uff01\uff1f])|\n+")


def passages(text: str) -> list[str]:
    """The passages of a text: its sentences and lines, each once; of one without any, pieces that overlap by half.

    Returns:
        Empty where the text is no longer than `LONG`: it is a passage itself.
    """
    if len(text) <= LONG:
        return []
    sentences: list[str] = []
    fragment = ""
    for part in filter(None, (part.strip() for part in _SENTENCE_ENDS.split(text))):
        fragment = f"{fragment} {part}".strip()
        if len(fragment) >= _FRAGMENT:
            sentences.append(fragment)
            fragment = ""
    if fragment:
        sentences.append(fragment)
    return list(dict.fromkeys(piece for sentence in sentences for piece in _pieces(sentence)))


def embed_queries(encode: Callable[[Sequence[str]], NDArray[np.float32]], texts: Sequence[str]) -> NDArray[np.float32]:
    """The texts as `EditMemory.search` takes them.

    Args:
        encode: Embeds texts, one unit vector each.
        texts: Inputs of any length.

    Returns:
        float32 [len(texts), width] where all are short; else [len(texts), most vectors of a text, width], the text's
        own first, then its passages', then rows of zeros.
    """
    parts = [[text, *passages(text)] for text in texts]
    vectors = encode([part for own in parts for part in own])
    most = max(map(len, parts), default=1)
    if most == 1:
        return vectors
    queries = np.zeros((len(texts), most, vectors.shape[1]), dtype=np.float32)
    ends = np.cumsum([len(own) for own in parts])
    for query, own in zip(queries, np.split(vectors, ends[:-1]), strict=True):
        query[: len(own)] = own
    return queries


def _pieces(sentence: str) -> list[str]:
    """A sentence as it is; one as long as a long text in pieces that overlap by half, cut between words if it has any.

    What lies in less than half a piece stands whole in one of them.
    """
    if len(sentence) <= LONG:
        return [sentence]
    words = [word[at : at + LONG // 2] for word in sentence.split() for at in range(0, len(word), LONG // 2)]
    halves: list[str] = []
    for word in words:
        if halves and len(halves[-1]) + len(word) < LONG // 2:
            halves[-1] += f" {word}"
        else:
            halves.append(word)
    return [f"{first} {second}" for first, second in pairwise(halves)] or halves
