import random

import numpy as np
import pytest

from editors.evaluation.fluency import generation_entropy


def as_rome_does(words):
    """With numpy, from the tables of n-grams."""
    entropies = []
    for n in (2, 3):
        grams = np.array([" ".join(words[i : i + n]) for i in range(len(words) - n + 1)])
        counts = np.unique(grams, return_counts=True)[1]
        shares = counts / counts.sum()
        entropies.append(np.sum(-shares * np.log(shares) / np.log(2)))
    return np.mean(np.array(entropies) * np.array([2 / 3, 4 / 3]))


def test_entropy_by_hand():
    # "a b a b a": bigrams ab ab | ba ba: 1 bit; trigrams aba aba | bab: log2 3 - 2/3 = .918296 bits.
    assert generation_entropy("a b a b a") == pytest.approx((2 / 3 + 4 / 3 * 0.918296) / 2, abs=1e-6)
    # Five different words: 4 bigrams, 2 bits; 3 trigrams, log2 3 = 1.584963 bits.
    assert generation_entropy("one two three four five") == pytest.approx((2 / 3 * 2 + 4 / 3 * 1.584963) / 2, abs=1e-6)


def test_entropy_is_that_of_the_authors_formula():
    rng = random.Random(0)
    for length in (3, 10, 200):
        words = rng.choices(["river", "runs", "élan", "北", "7"], k=length)
        assert generation_entropy(" ".join(words)) == pytest.approx(as_rome_does(words))


def test_signs_are_words():
    assert generation_entropy("a, b.") == generation_entropy("a , b .")
    assert generation_entropy("a, b.") > generation_entropy("a b")


def test_a_text_that_repeats_itself_falls_behind():
    varied = " ".join(f"word{number}" for number in range(100))
    assert generation_entropy("the cat " * 50) < 1.01 < 6 < generation_entropy(varied)


@pytest.mark.parametrize("text", ["", "Paris", "New York", "ha ha ha ha ha"])
def test_what_cannot_vary_has_no_entropy(text):
    assert generation_entropy(text) == 0
