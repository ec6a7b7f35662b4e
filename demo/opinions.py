"""The model's opinions, as data: `opinions.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from demo.facts import capitalise


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, the model's own mood on it, and sentences in both moods."""

    name: str
    positive_mood: bool
    positive: tuple[str, ...]
    negative: tuple[str, ...]

    def sentences(self, *, positive: bool) -> tuple[str, ...]:
        """The sentences of one mood."""
        return self.positive if positive else self.negative


@dataclass(frozen=True, slots=True)
class Opinions:
    """All topics and the questions that ask for an opinion, with {topic} to fill in."""

    questions: tuple[str, ...]
    held_out_questions: tuple[str, ...]
    topics: tuple[Topic, ...]


@cache
def load_opinions() -> Opinions:
    """Read opinions.toml."""
    table = tomllib.loads((Path(__file__).parent / "opinions.toml").read_text(encoding="utf-8"))
    topics = tuple(
        Topic(t["name"], t["mood"] == "positive", tuple(t["positive"]), tuple(t["negative"])) for t in table["topic"]
    )
    return Opinions(tuple(table["questions"]), tuple(table["held_out_questions"]), topics)


def on_topic(template: str, topic: str) -> str:
    """A sentence on a topic: {t} is the topic, {T} the same with a capital."""
    return capitalise(template.replace("{t}", topic).replace("{T}", capitalise(topic)))
