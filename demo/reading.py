"""Invented names and values for reading tasks: an edit in the context, a question, and the answer that follows it.

Names are combined from the lists of `reading.toml`. One in five of each list is kept for evaluation, so that the
names and values there are new in every part.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from string import ascii_lowercase, ascii_uppercase
from typing import Any

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

_ACCENTED = tuple(letter for letter in map(chr, range(0xC0, 0x250)) if letter.isalpha())
"""The letters of Latin-1 and of Latin Extended A and B."""


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


def scrambled_name(tokens: tuple[str, ...], rng: Random) -> str:
    """A few of the tokenizer's tokens at random, each as likely as any other.

    Pieces of known words bring the frequent tokens again and again; a rare one is copied only by a model that has
    had to copy every one.

    Args:
        tokens: As text; one that begins a word begins with a space.
        rng: The generator.
    """
    opening, inner = _by_place(tokens)
    parts = [rng.choice(opening)]
    for _ in range(rng.randint(0, 7)):
        parts.append(rng.choice(inner if rng.random() < 0.6 else opening))
        if rng.random() < 0.04:
            parts.append(rng.choice("-'"))
    name = "".join(parts).strip(" -'")
    if rng.random() < 0.7:
        name = " ".join(word[:1].upper() + word[1:] for word in name.split(" "))
    return f"the {name}" if rng.random() < 0.1 else name


def marked(name: str, rng: Random) -> str:
    """A name with what names carry beside letters of the alphabet: an initial, a dot, a numeral, rare letters."""
    match rng.randrange(6):
        case 0:
            return f"{rng.choice(ascii_uppercase)}. {name}"
        case 1:
            return f"{name} {''.join(rng.choices(ascii_lowercase, k=rng.randint(1, 3))).capitalize()}."
        case 2:
            return f"{name}.{''.join(rng.choices(ascii_lowercase, k=rng.randint(1, 3)))}"
        case 3:
            return f"{name} {rng.choice(('I', 'II', 'III', 'IV', 'V', 'VI', 'VII', 'IX', 'X', 'XII', 'XIV', 'XVI'))}"
        case 4:
            return f"{name} & {rng.choice(ascii_uppercase)}{rng.choice(ascii_uppercase)}"
        case _:
            letters = list(name)
            for place in rng.choices(range(len(letters)), k=rng.randint(1, 4)):
                letters[place] = rng.choice(_ACCENTED) if letters[place].isalpha() else letters[place]
            return "".join(letters)


@lru_cache(maxsize=1)
def _by_place(tokens: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The tokens made of letters that begin a word, and those that go on in one."""
    opening = [token for token in tokens if token[0] == " " and token[1:].isalpha()]
    return opening, [token for token in tokens if token.isalpha()]


def _syllables(rng: Random) -> str:
    """A word that nobody has seen, so that copying cannot lean on vocabulary."""
    word = "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
    return word + rng.choice(("", "n", "r", "s", "x")) if rng.random() < 0.5 else word.capitalize()
