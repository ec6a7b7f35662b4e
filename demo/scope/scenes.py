"""Pairs from scenes: single facts, written out by hand in the many ways in which people ask for them.

Frames give many subjects few phrasings; scenes give one subject many, far from each other in words, and look-alikes
that are near in words. So that no name is learnt by heart, the names of a scene are exchanged in half of its pairs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random

from demo.scope.kinds import Pair
from demo.scope.splits import Split, split
from demo.scope.wording import Wording
from editors.edit import Sentiment

_FOLDER = Path(__file__).parent / "scenes"
_OPERATORS = 3
"""The first phrasings of a scene are those that an operator would post."""
_RENAMED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One fact about one subject, and inputs that ask for it or seem to.

    Attributes:
        ask: Paraphrases of one question.
        state: Statements of the fact.
        settled: Yes-or-no questions and claims that the fact confirms or contradicts.
        reversed: Questions for the subject, which a statement settles and a question does not.
        near: By type of hardness, inputs that the fact does not settle.
    """

    subject: str
    ask: tuple[str, ...]
    state: tuple[str, ...]
    settled: tuple[str, ...]
    reversed: tuple[str, ...]
    near: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class TopicScene:
    """Inputs that ask for an opinion on a topic, and inputs about it that do not."""

    topic: str
    opinion: tuple[str, ...]
    facts: tuple[str, ...]


@dataclass(frozen=True)
class ScenePairs:
    """Draws pairs from the scenes of one split."""

    scenes: tuple[Scene, ...]
    topics: tuple[TopicScene, ...]
    wording: Wording

    def in_scope(self, rng: Random) -> Pair | None:
        """Another phrasing, after other talk or not; a question that the edit settles; the reversed of a statement."""
        scene, stated = rng.choice(self.scenes), rng.random() < 0.35
        descriptor = rng.choice(_edits(scene, stated=stated))
        draw = rng.random()
        if stated and scene.reversed and draw < 0.2:
            return self._pair(scene, descriptor, rng.choice(scene.reversed), "scene, reversed statement", rng)
        if draw < 0.3:
            return self._pair(scene, descriptor, rng.choice(scene.settled), "scene, entailed", rng)
        asked = rng.choice(scene.ask)
        if draw < 0.42:
            asked = f"{rng.choice(_look_alikes(rng.choice(self.scenes)))} {self.wording.bridge(rng)} {asked}"
        return self._pair(scene, descriptor, asked, "scene, paraphrase", rng)

    def out_of_scope(self, rng: Random) -> Pair | None:
        """A look-alike; the reversed of a question; the same of another subject; another question at the end."""
        scene, draw = rng.choice(self.scenes), rng.random()
        stated = rng.random() < 0.35
        descriptor = rng.choice(_edits(scene, stated=stated))
        if draw < 0.06 and scene.reversed and not stated:
            return self._pair(scene, descriptor, rng.choice(scene.reversed), "scene, reversed question", rng)
        if draw < 0.16:
            moved = self._of_another(scene, rng)
            return None if moved is None else self._pair(scene, descriptor, moved, "scene, other subject", rng)
        if draw < 0.26:
            last = rng.choice((*_look_alikes(scene), rng.choice(rng.choice(self.scenes).ask)))
            text = f"{rng.choice(scene.ask)} {self.wording.bridge(rng)} {last}"
            return self._pair(scene, descriptor, text, "scene, earlier question", rng)
        kind = rng.choice(list(scene.near))
        return self._pair(scene, descriptor, rng.choice(scene.near[kind]), f"scene, {kind}", rng, label=False)

    def opinion(self, rng: Random) -> Pair | None:
        """An opinion asked on the topic of an edit."""
        scene = rng.choice(self.topics)
        return self._of_topic(scene, rng.choice(scene.opinion), "scene, opinion on the topic", rng)

    def no_opinion(self, rng: Random) -> Pair | None:
        """Anything else about the topic, or an opinion on another one."""
        scene = rng.choice(self.topics)
        if rng.random() < 0.75:
            return self._of_topic(scene, rng.choice(scene.facts), "scene, fact about the topic", rng)
        other = rng.choice(self.topics)
        if other is scene:
            return None
        return self._of_topic(scene, rng.choice(other.opinion), "scene, opinion on another topic", rng)

    def _of_another(self, scene: Scene, rng: Random) -> str | None:
        """An in-scope input with the subject of another scene in the place of its own; None where it does not stand."""
        other = rng.choice(self.scenes)
        text = rng.choice((*scene.ask, *scene.settled))
        moved = re.sub(re.escape(scene.subject), lambda _: other.subject, text, flags=re.IGNORECASE)
        return None if moved == text or other is scene else moved[0].upper() + moved[1:]

    def _pair(
        self, scene: Scene, descriptor: str, text: str, kind: str, rng: Random, *, label: bool | None = None
    ) -> Pair | None:
        if text == descriptor:
            return None
        text = self.wording.dress(text, scene.subject, rng)
        if rng.random() < _RENAMED:
            rename = self._renaming(scene.subject, rng)
            descriptor, text = rename(descriptor), rename(text)
        return Pair(descriptor, text, kind in _IN_SCOPE if label is None else label, kind, scene.subject)

    def _of_topic(self, scene: TopicScene, text: str, kind: str, rng: Random) -> Pair:
        descriptor = Sentiment(scene.topic, rng.random() < 0.5).text
        return Pair(descriptor, self.wording.dress(text, scene.topic, rng), kind in _IN_SCOPE, kind, scene.topic)

    def _renaming(self, subject: str, rng: Random) -> Callable[[str], str]:
        """Puts other names in the place of those in a subject, the same in every text."""
        others = {name.casefold(): rng.choice(self._names) for name in _NAME.findall(subject)}
        if not others:
            return str
        known = re.compile(rf"\b({'|'.join(map(re.escape, others))})\b", re.IGNORECASE)

        def replace(match: re.Match[str]) -> str:
            other = others[match[1].casefold()]
            return other if match[1][0].isupper() else other.lower()

        return lambda text: known.sub(replace, text)

    @cached_property
    def _names(self) -> list[str]:
        return sorted({name for scene in self.scenes for name in _NAME.findall(scene.subject)})


def load_scenes(of: Split, wording: Wording) -> ScenePairs:
    """The scenes of one split; a subject's hash says which it belongs to."""
    scenes, topics = _read()
    return ScenePairs(
        tuple(scene for scene in scenes if split(scene.subject) == of),
        tuple(scene for scene in topics if split(scene.topic) == of),
        wording,
    )


@cache
def _read() -> tuple[list[Scene], list[TopicScene]]:
    lines = [
        json.loads(line)
        for path in sorted(_FOLDER.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    scenes = [
        Scene(
            subject=line["subject"],
            near={kind: tuple(texts) for kind, texts in line["near"].items()},
            **{name: tuple(line[name]) for name in ("ask", "state", "settled", "reversed")},
        )
        for line in lines
        if "subject" in line
    ]
    topics = [TopicScene(t["topic"], tuple(t["opinion"]), tuple(t["facts"])) for t in lines if "topic" in t]
    return scenes, topics


def _edits(scene: Scene, *, stated: bool) -> tuple[str, ...]:
    return scene.state if stated else scene.ask[:_OPERATORS]


def _look_alikes(scene: Scene) -> list[str]:
    return [text for texts in scene.near.values() for text in texts if text[0].isupper()] or list(scene.ask)


_NAME = re.compile(r"\b[A-Z][a-zà-öø-ÿ]{3,}\b")
"""Names that may be exchanged: not codes, whose form tells what they name."""

_IN_SCOPE = frozenset(
    {"scene, paraphrase", "scene, entailed", "scene, reversed statement", "scene, opinion on the topic"}
)
