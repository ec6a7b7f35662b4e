"""Names of things by kind, made from the patterns of `names.toml`, and names that look like them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from demo.facts import fill
from demo.scope.splits import Split, split

_HERE = Path(__file__).parent
_SLOT = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(\d+)-(\d+)")
_TRIES = 300
_EDITS = {"a": "e", "e": "a", "i": "y", "o": "u", "u": "o", "b": "d", "d": "t", "l": "r", "m": "n", "n": "m", "s": "z"}

_ENDINGS = ("son", "er", "ia", "stone", "a", "ham", "ov", "ley")


@dataclass(frozen=True, slots=True)
class Names:
    """Makes names and values of one split.

    Attributes:
        lists: Words by list.
        patterns: What the names of each kind of subject look like.
        values: What the values of each kind look like.
        alike: By kind, names that look like {s} and mean something else.
        parts: By kind, parts of {s} and things that belong to it.
        of: The split that every name belongs to.
    """

    lists: dict[str, tuple[str, ...]]
    patterns: dict[str, tuple[str, ...]]
    values: dict[str, tuple[str, ...]]
    alike: dict[str, tuple[str, ...]]
    parts: dict[str, tuple[str, ...]]
    of: Split

    def subject(self, kind: str, rng: Random) -> str:
        """A name of the split."""
        for _ in range(_TRIES):
            name = self._fill(rng.choice(self.patterns[kind]), rng)
            if split(name) == self.of:
                return name
        raise ValueError(f"no name of kind {kind!r} falls in the split {self.of!r}; give names.toml more of them")

    def value(self, kind: str, rng: Random) -> str:
        """A value, such as a price, or the name of anything."""
        return self._fill(rng.choice((self.values if kind in self.values else self.patterns)[kind]), rng)

    def near(self, subject: str, kind: str, rng: Random) -> str | None:
        """Another name of the split that looks like the subject's, or None if none was found."""
        for _ in range(_TRIES):
            draw = rng.random()
            if draw < 0.3 and self.alike.get(kind):
                name = fill(self._fill(rng.choice(self.alike[kind]), rng), subject)
            elif draw < 0.55:
                name = _misspelt(subject, rng)
            elif draw < 0.7 and any(c.isdigit() for c in subject):
                name = near_number(subject, rng)
            else:
                name = self._sharing_a_word(subject, kind, rng)
            if _differ(name, subject) and split(name) == self.of:
                return name
        return None

    def part(self, subject: str, kind: str, rng: Random) -> str | None:
        """Something that belongs to the subject, or None for kinds without."""
        return fill(rng.choice(self.parts[kind]), subject) if kind in self.parts else None

    def text(self, pattern: str, rng: Random) -> str:
        """Fill the slots of a pattern of wording, leaving those that are no list."""
        return self._fill(pattern, rng)

    def _sharing_a_word(self, subject: str, kind: str, rng: Random) -> str:
        """The subject with one of its names or numbers from another of its kind; an office stays an office."""
        mine = re.split(r"([ -])", subject)
        other = re.split(r"[ -]", self._fill(rng.choice(self.patterns.get(kind, ("{first_names} {surnames}",))), rng))
        places = [i for i, word in enumerate(mine) if _is_name(word)] or list(range(0, len(mine), 2))
        mine[rng.choice(places)] = rng.choice([word for word in other if _is_name(word)] or other)
        return "".join(mine)

    def _fill(self, pattern: str, rng: Random) -> str:
        def slot(match: re.Match[str]) -> str:
            if numbers := _RANGE.fullmatch(match[1]):
                return str(rng.randint(int(numbers[1]), int(numbers[2])))
            return rng.choice(self.lists[match[1]]) if match[1] in self.lists else match[0]

        return _SLOT.sub(slot, pattern)


def near_number(text: str, rng: Random) -> str:
    """The text with one of its numbers changed a little: 8 to 18, 333 to 33, 12 to 21, 4.2 to 4.3."""
    numbers = list(re.finditer(r"\d+", text))
    if not numbers:
        return text
    place = rng.choice(numbers)
    return text[: place.start()] + _changed(place[0], rng) + text[place.end() :]


def _changed(digits: str, rng: Random) -> str:
    at = rng.randrange(len(digits))
    options = [digits[:at] + str(rng.randint(1, 9)) + digits[at:], str(int(digits) + rng.choice((1, 2, 10, 100)))]
    if len(digits) > 1:
        before, after = digits[:at], digits[at + 1 :]
        options += [before + after, digits[::-1], f"{before}{rng.randint(1, 9)}{after}"]
    return rng.choice([option for option in options if option != digits and not option.startswith("0")] or options[:1])


def _misspelt(name: str, rng: Random) -> str:
    """Another name a letter or an ending away: Westerholt, Westerhult."""
    words = name.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha() and word[0].isupper()]
    if not long:
        return name
    at = rng.choice(long)
    word = words[at]
    letters = [i for i in range(1, len(word)) if word[i] in _EDITS]
    if letters and rng.random() < 0.7:
        i = rng.choice(letters)
        words[at] = word[:i] + _EDITS[word[i]] + word[i + 1 :]
    else:
        words[at] = word[: rng.randint(3, len(word))] + rng.choice(_ENDINGS)
    return " ".join(words)


def _is_name(word: str) -> bool:
    return word[:1].isupper() or word[:1].isdigit()


def _differ(a: str, b: str) -> bool:
    return a.casefold().removeprefix("the ") != b.casefold().removeprefix("the ")


@cache
def load_names(of: Split) -> Names:
    """Read names.toml, and the lists of demo/reading.toml, for one split."""
    reading = tomllib.loads((_HERE.parent / "reading.toml").read_text(encoding="utf-8"))
    table = tomllib.loads((_HERE / "names.toml").read_text(encoding="utf-8"))
    borrowed = {name: words for name, words in reading.items() if name not in {"relation", "distractors"}}
    lists = {name: tuple(words) for name, words in (borrowed | table["lists"]).items()}
    parts = {part: _tuples(table[part]) for part in ("patterns", "values", "alike", "parts")}
    return Names(lists, **parts, of=of)


def _tuples(table: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(patterns) for name, patterns in table.items()}
