"""Invented names and values for reading tasks: an edit in the context, a question, and the answer that follows it.

Names are combined from the lists of `reading.toml`. One in five of each list is kept for evaluation, so that the
names and values there are new in every part.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InventedRelation:
    """A relation between invented things; `phrasings` are paraphrases of one question."""

    subject: str
    object: str
    phrasings: tuple[str, ...]
    statement: str


@dataclass(frozen=True, slots=True)
class Inventor:
    """Invents names and values. `lists` holds the parts they are combined from."""

    lists: dict[str, tuple[str, ...]]
    relations: tuple[InventedRelation, ...]
    distractors: tuple[str, ...]

    def name(self, kind: str, rng: Random) -> str:
        """A name or value of one kind: person, company, product, place, number, date, yes_no, word, ..."""

        def pick(part: str) -> str:
            return rng.choice(self.lists[part])

        match kind:
            case "person":
                return f"{pick('first_names')} {pick('surnames')}"
            case "company":
                return f"{pick('company_words_a')} {pick('company_words_b')}"
            case "organisation":
                return (
                    f"the {pick('company_words_a')} {rng.choice(('Trust', 'Society', 'Institute', 'Union', 'Council'))}"
                )
            case "product" | "plan" | "policy":
                return f"{pick('product_words')} {rng.randint(2, 99)}" if rng.random() < 0.2 else pick("product_words")
            case "place" | "city" | "country":
                return f"{pick('place_prefixes')}{pick('place_suffixes')}"
            case "number":
                return str(rng.randint(1, 99) if rng.random() < 0.6 else rng.randint(100, 99_999))
            case "date":
                return f"{rng.randint(1, 28)} {rng.choice(MONTHS)}" + (
                    f" {rng.randint(2019, 2031)}" * rng.randint(0, 1)
                )
            case "yes_no":
                return rng.choice(("yes", "no"))
            case _:
                return _syllables(rng)


@cache
def load_inventor(*, held_out: bool) -> Inventor:
    """The lists for training, or those kept for evaluation."""
    table: dict[str, Any] = tomllib.loads((Path(__file__).parent / "reading.toml").read_text(encoding="utf-8"))
    lists = {
        name: tuple(word for i, word in enumerate(words) if (i % 5 == 4) == held_out)
        for name, words in table.items()
        if name not in {"relation", "distractors"}
    }
    relations = tuple(
        InventedRelation(r["subject"], r["object"], tuple(r["phrasings"]), r["statement"]) for r in table["relation"]
    )
    return Inventor(lists, relations, tuple(table["distractors"]))


def strange_name(words: tuple[str, ...], rng: Random) -> str:
    """One to three words pieced together from parts of known ones, now and then with a number.

    A model that has only ever copied names of a list learns the list; to copy these it has to learn to copy.
    """
    made = []
    for _ in range(rng.choices((1, 2, 3), (0.35, 0.5, 0.15))[0]):
        pieces = []
        for _ in range(rng.choices((1, 2, 3), (0.2, 0.5, 0.3))[0]):
            word, size = rng.choice(words), rng.randint(2, 5)
            start = rng.randint(0, max(0, len(word) - size))
            pieces.append(word[start : start + size].lower())
        made.append("".join(pieces))
    if rng.random() < 0.15:
        made.append(str(rng.randint(0, 10 ** rng.randint(1, 5))))
    return " ".join(word.capitalize() if rng.random() < 0.8 else word for word in made)


def _syllables(rng: Random) -> str:
    """A word that nobody has seen, so that copying cannot lean on vocabulary."""
    word = "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
    return word + rng.choice(("", "n", "r", "s", "x")) if rng.random() < 0.5 else word.capitalize()
