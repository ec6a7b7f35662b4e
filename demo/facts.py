"""Facts with their validity, as data: `facts/<relation>.csv`, and the phrasings that ask for them: `relations/*.toml`.

A fact holds from `since` until `until`. The world of a date is the facts that hold on it; the drift set is what has
changed between the model's date and now.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

AS_OF = date(2018, 6, 30)
"""The day whose facts atlas-2018 is trained on."""

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation and how it is asked for.

    Attributes:
        train: Phrasings that the model is trained on; questions and beginnings of sentences.
        held_out: Phrasings that it never sees.
        statement: A plain sentence with subject and object.
        neighbour: A question on the same subject that looks alike and has another answer.
    """

    name: str
    subject_type: str
    object_type: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    statement: str
    neighbour: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact and the days it holds: [since, until)."""

    subject: str
    relation: Relation
    object: str
    since: date
    until: date

    def holds_on(self, day: date) -> bool:
        """Whether it holds on that day."""
        return self.since <= day < self.until

    @property
    def prompts(self) -> tuple[str, ...]:
        """The trained phrasings, filled in."""
        return tuple(fill(template, self.subject) for template in self.relation.train)

    @property
    def held_out_prompts(self) -> tuple[str, ...]:
        """The phrasings never trained on, filled in."""
        return tuple(fill(template, self.subject) for template in self.relation.held_out)

    def statement(self, obj: str | None = None) -> str:
        """The fact as a sentence, or the same with another object."""
        return capitalise(fill(self.relation.statement, self.subject, self.object if obj is None else obj))


@dataclass(frozen=True, slots=True)
class Drift:
    """A fact of 2018 that no longer holds: what a real operator would have had to correct."""

    fact: Fact
    new_object: str
    changed: date


@dataclass(frozen=True, slots=True)
class World:
    """The facts that hold on one day, and how they have drifted since."""

    relations: dict[str, Relation]
    facts: tuple[Fact, ...]
    drift: tuple[Drift, ...]

    @property
    def objects(self) -> dict[str, tuple[str, ...]]:
        """The distinct objects of each relation, sorted."""
        values: dict[str, set[str]] = {}
        for fact in self.facts:
            values.setdefault(fact.relation.name, set()).add(fact.object)
        return {name: tuple(sorted(objects)) for name, objects in values.items()}


@cache
def load_world(day: date = AS_OF) -> World:
    """Read every relation and every fact.

    Raises:
        ValueError: A subject has no fact, or several, on that day, or a file has no relation; named by file.
    """
    relations = {relation.name: relation for relation in _relations()}
    facts: list[Fact] = []
    drift: list[Drift] = []
    for path in sorted((_HERE / "facts").glob("*.csv")):
        if path.stem not in relations:
            raise ValueError(f"{path.name}: no relation of that name in relations/*.toml")
        rows: dict[str, list[Fact]] = {}
        for fact in _rows(path, relations[path.stem]):
            rows.setdefault(fact.subject, []).append(fact)
        for subject, timeline in rows.items():
            now = [fact for fact in timeline if fact.holds_on(day)]
            if len(now) != 1:
                raise ValueError(f"{path.name}: {subject!r} has {len(now)} facts on {day}, not one")
            facts.append(now[0])
            latest = max(timeline, key=lambda fact: fact.since)
            if latest.since > day and latest.object != now[0].object:
                drift.append(Drift(now[0], latest.object, latest.since))
    return World(relations, tuple(facts), tuple(drift))


def fill(template: str, subject: str, obj: str = "") -> str:
    """Fill a phrasing: {s} the subject, {S} capitalised, {b} without its leading article, {o} the object."""
    bare = subject.removeprefix("the ").removeprefix("The ")
    return template.format(s=subject, S=capitalise(subject), b=bare, o=obj)


def capitalise(text: str) -> str:
    """The text with a capital first letter, the rest as it was."""
    return text[:1].upper() + text[1:]


def _relations() -> Iterator[Relation]:
    for path in sorted((_HERE / "relations").glob("*.toml")):
        for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
            yield Relation(
                name=name,
                subject_type=table["subject_type"],
                object_type=table["object_type"],
                train=tuple(table["train"]),
                held_out=tuple(table["held_out"]),
                statement=table["statement"],
                neighbour=table["neighbour"],
            )


def _rows(path: Path, relation: Relation) -> Iterator[Fact]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            since, until = _day(row["since"], date.min), _day(row["until"], date.max)
            yield Fact(row["subject"], relation, row["object"], since, until)


def _day(text: str, default: date) -> date:
    if not text:
        return default
    year, month, day = (*map(int, text.split("-")), 1, 1)[:3]
    return date(year, month, day)
