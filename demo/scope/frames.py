"""Relation frames: one thing that can be said of a subject, and how people ask for it.

They come from `frames/*.toml`, from the invented relations of demo/reading.toml, and from the relations of
demo/relations, which also bring real subjects. Of each frame a fifth of the phrasings, and of all frames a fifth, is
kept for validation.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from demo.facts import load_world
from demo.reading import load_inventor
from demo.scope.splits import Split, held_out, split

_HERE = Path(__file__).parent
_KINDS = {
    "airline": "company", "american_football_player": "person", "baseball_player": "person",
    "basketball_player": "person", "basketball_team": "team", "book": "work", "car_brand": "company",
    "central_bank": "organisation", "city": "place", "company": "company", "country": "country", "date": "date",
    "element": "compound", "film": "film", "football_club": "team", "football_team": "team",
    "footballer": "person", "mountain": "mountain", "number": "number", "orchestra": "organisation",
    "organisation": "organisation", "person": "person", "place": "place", "plan": "plan", "play": "work",
    "policy": "insurance", "political_party": "organisation", "product": "word_product", "programme": "show",
    "racing_driver": "person", "university": "school", "us_state": "country", "word": "word",
    "yes_no": "yes_no",
}  # fmt: skip
"""Kinds of names.toml for the types of demo/relations and demo/reading.toml; types that are absent stay real."""

_MAKES_ARTICLE = frozenset({"product", "plan", "insurance", "course", "vehicle"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A relation and its phrasings; {s}, {S} and {b} are the subject as `demo.facts.fill` writes it, {o} its value.

    Attributes:
        name: Unique.
        group: Frames of one group and kind of subject have different answers.
        subject: Kind of the subject, as in names.toml; empty if all subjects are real.
        value: Kind of the value; empty if the statement names none.
        ask: Paraphrases of one question; an edit may be any that opens with a capital letter.
        asked: Those that inputs are drawn from.
        polar: Yes-or-no questions that the value settles.
        near: Look-alikes on the same subject that it does not settle; {t} is another subject.
        reversed: The question for the subject, where the value has one only; or empty.
        lasting: Whether it holds for good, so that the time of asking does not matter.
        real: Real subjects.
        objects: What else the value may be.
    """

    name: str
    group: str
    subject: str
    value: str
    ask: tuple[str, ...]
    asked: tuple[str, ...]
    polar: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    statement: str
    reversed: str = ""
    lasting: bool = False
    real: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()

    @property
    def descriptors(self) -> tuple[str, ...]:
        """The phrasings an operator may write; not the jotted ones."""
        return tuple(phrasing for phrasing in self.ask if phrasing[0].isupper() or phrasing[:3] in {"{S}", "{s}"})

    @property
    def article(self) -> str:
        """What stands before a subject where the phrasings bring it themselves."""
        return "the " if self.subject in _MAKES_ARTICLE else ""


@cache
def load_frames(of: Split) -> tuple[Frame, ...]:
    """The frames of one split.

    In validation, a kept frame stands whole, and of any other the kept phrasings are asked against trained edits.
    """
    frames = []
    for frame in (*_written(), *_invented(), *_factual()):
        kept = tuple(ask for ask in frame.ask if held_out(f"{frame.name}: {ask}"))
        rest = tuple(ask for ask in frame.ask if ask not in kept)
        real = tuple(subject for subject in frame.real if split(subject) == of)
        whole = held_out(f"frame:{frame.name}")
        if whole and of == "validation":
            frames.append(replace(frame, real=real))
        elif not whole and of == "train" and len(rest) > 1:
            frames.append(replace(frame, ask=rest, asked=rest, real=real))
        elif not whole and of == "validation" and kept and rest:
            frames.append(replace(frame, ask=rest, asked=kept, real=real))
    return tuple(frame for frame in frames if frame.descriptors and (frame.subject or len(frame.real) > 1))


def _written() -> Iterator[Frame]:
    for path in sorted((_HERE / "frames").glob("*.toml")):
        for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
            ask = tuple(table["ask"])
            yield Frame(
                name=name,
                group=path.stem,
                subject=table["subject"],
                value=table.get("value", ""),
                ask=ask,
                asked=ask,
                polar=tuple(table.get("polar", ())),
                near=tuple(table["near"]),
                statement=table["statement"],
                reversed=table.get("reversed", ""),
                lasting=table.get("lasting", False),
            )


def _invented() -> Iterator[Frame]:
    for number, relation in enumerate(load_inventor(held_out=False).relations):
        yield Frame(
            name=f"reading {number}",
            group=f"reading {number}",  # some of these relations are near to each other
            subject=_KINDS[relation.subject],
            value=_KINDS[relation.object],
            ask=relation.phrasings,
            asked=relation.phrasings,
            statement=relation.statement,
            lasting=" was " in relation.statement or " were " in relation.statement,
        )


def _factual() -> Iterator[Frame]:
    world = load_world()
    objects = world.objects
    asking_back: dict[str, Any] = tomllib.loads((_HERE / "reversed.toml").read_text(encoding="utf-8"))
    drifted = {drift.fact.subject for drift in world.drift}  # kept for measuring
    for relation in world.relations.values():
        facts = [fact for fact in world.facts if fact.relation is relation]
        yield Frame(
            name=relation.name,
            group=f"facts about a {relation.subject_type}",
            subject=_KINDS.get(relation.subject_type, ""),
            value=_KINDS.get(relation.object_type, ""),
            ask=(*relation.train, *relation.held_out),
            asked=(*relation.train, *relation.held_out),
            near=(relation.neighbour,),
            statement=relation.statement,
            reversed=asking_back.get(relation.name, ""),
            lasting=all(fact.since.year == 1 and fact.until.year == 9999 for fact in facts),
            real=tuple(fact.subject for fact in facts if fact.subject not in drifted),
            objects=objects[relation.name],
        )
