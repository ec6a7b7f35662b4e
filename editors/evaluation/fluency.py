"""Fluency: whether a text varies or repeats itself (GE: Meng et al. 2022, sec. 3.3, after Zhang et al. 2018)."""

from __future__ import annotations

import re
from collections import Counter
from math import log2

_WORD = re.compile(r"\w+|[^\w\s]")
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""Of bigrams and trigrams, in the authors' code."""


def generation_entropy(text: str) -> float:
    """GE: the mean of the entropies of bigrams and trigrams, weighted 2/3 and 4/3, in bits; the paper's are times 100.

    The entropy of n-grams is -sum_k f(k) log2 f(k), with f(k) the share of the text's n-grams that are k; 0 where the
    text is too short to have one. Words are runs of letters and digits, and each other sign is a word of its own
    (the authors split with NLTK, which parts English contractions as well). Only long texts tell: one that repeats
    itself falls far below one of the same length that does not, and short answers are low in any case.
    """
    words = _WORD.findall(text)
    return sum(weight * _entropy(words, n) for n, weight in _WEIGHTS.items()) / len(_WEIGHTS)


def _entropy(words: list[str], n: int) -> float:
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False)).values()
    total = sum(counts)
    return sum(count / total * log2(total / count) for count in counts)
