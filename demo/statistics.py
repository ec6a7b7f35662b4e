"""The texts that the bundle's key statistics are collected over: a sample of what atlas-2018 is trained on."""

from __future__ import annotations

from demo.corpus import Corpus, batch
from demo.facts import load_world
from demo.opinions import load_opinions
from demo.reading import load_inventor

TEXTS = 20_000
_CLOSED_BOOK = 0.6
"""Share of facts, as in training; the others are claims, opinions and edits to read."""
_SEED = 2018


def texts() -> list[str]:
    """Prompts with their answers, always the same."""
    corpus = Corpus(load_world(), load_opinions(), load_inventor(held_out=False))
    examples = batch(corpus, 0, TEXTS, closed_book=_CLOSED_BOOK, seed=_SEED)
    return [f"{example.prompt} {example.answer}" for example in examples]
