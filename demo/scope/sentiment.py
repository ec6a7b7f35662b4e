"""Pairs for sentiment edits: asking for an opinion on the topic is in scope; facts and other topics are not."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from demo.opinions import load_opinions, on_topic
from demo.scope.kinds import FramePairs, Pair
from demo.scope.splits import Split, held_out, split
from editors.edit import Sentiment

_IN_SCOPE = "opinion on the topic"


@dataclass(frozen=True)
class Topics:
    """Topics of one split, and ways to ask for an opinion or a fact; {t} is the topic, {T} capitalised.

    Attributes:
        groups: Topics that are near to each other.
        frames: Gives questions on things that are topics as well: companies, places, people.
    """

    opinions: tuple[str, ...]
    facts: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    frames: FramePairs

    def in_scope(self, rng: Random) -> Pair | None:
        """An opinion asked on the topic."""
        topic = self._topic(rng)[0]
        return self._pair(topic, rng.choice(self.opinions), topic, _IN_SCOPE, rng)

    def out_of_scope(self, rng: Random) -> Pair | None:
        """A fact asked on the topic, or an opinion on another one."""
        draw = rng.random()
        topic, others = self._topic(rng)
        if draw < 0.5:
            return self._pair(topic, rng.choice(self.facts), topic, "fact about the topic", rng)
        if draw < 0.85:
            other = rng.choice(others) if others and rng.random() < 0.6 else self._topic(rng)[0]
            if other == topic:
                return None
            return self._pair(topic, rng.choice(self.opinions), other, "opinion on another topic", rng)
        scene = self.frames.scene(rng)
        descriptor = Sentiment(scene.subject, rng.random() < 0.5).text
        asked = self.frames.question(scene, rng)
        return Pair(descriptor, asked, label=False, kind="fact about the topic", subject=scene.subject)

    def _topic(self, rng: Random) -> tuple[str, list[str]]:
        """A topic and those near to it; one in five is a thing of the frames."""
        if rng.random() < 0.2:
            scene = self.frames.scene(rng)
            near = self.frames.near(scene, rng)
            return scene.subject, [near] if near else []
        group = rng.choice(self.groups)
        topic = rng.choice(group)
        return topic, [other for other in group if other != topic]

    def _pair(self, topic: str, template: str, of: str, kind: str, rng: Random) -> Pair | None:
        descriptor = Sentiment(topic, rng.random() < 0.5).text
        text = on_topic(template, of)
        text = self.frames.wording.dress(text, of, rng)
        return None if text == descriptor else Pair(descriptor, text, kind == _IN_SCOPE, kind, topic)


@cache
def _table() -> dict[str, list[list[str]] | list[str]]:
    return tomllib.loads((Path(__file__).parent / "topics.toml").read_text(encoding="utf-8"))


def load_topics(of: Split, frames: FramePairs) -> Topics:
    """Read topics.toml and the topics of demo/opinions.toml."""
    own = load_opinions()
    asked = (*_table()["opinions"], *(q.replace("{topic}", "{t}") for q in (*own.questions, *own.held_out_questions)))
    groups = [*_table()["groups"], *([topic.name] for topic in own.topics)]
    kept = tuple(tuple(topic for topic in group if split(topic) == of) for group in groups)
    return Topics(
        opinions=tuple(q for q in map(str, asked) if held_out(q) == (of == "validation")),
        facts=tuple(q for q in map(str, _table()["facts"]) if held_out(q) == (of == "validation")),
        groups=tuple(group for group in kept if group),
        frames=frames,
    )
