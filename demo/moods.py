"""Edits of mood and questions that they settle, about topics that no benchmark asks for.

Some topics have sentences of their own, see `opinions.toml`; of any other, `moods.toml` has sentences that fit it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from demo.opinions import Topic, load_opinions, on_topic
from demo.scope.frames import load_frames
from demo.scope.kinds import FramePairs
from demo.scope.names import load_names
from demo.scope.sentiment import load_topics
from demo.scope.splits import split
from demo.scope.wording import Wording, load_wording
from editors.edit import Sentiment
from editors.evaluation.cases import Replies
from editors.serac.training.reading import ReadingExample

_REPLIES = 3
"""Of either mood, in an example."""


@dataclass(frozen=True, slots=True)
class Moods:
    """Draws edits of mood.

    Attributes:
        told: Topics with sentences of their own.
        others: Names of topics without.
        questions: That ask for an opinion; {t} is the topic, {T} the same with a capital.
        positive: Sentences that fit any topic, with the same slots.
        negative: The same in the other mood.
    """

    told: tuple[Topic, ...]
    others: tuple[str, ...]
    questions: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    wording: Wording

    def draw(self, rng: Random, *, thing: str | None = None) -> ReadingExample:
        """An edit of mood, and a question that asks for an opinion on its topic.

        Args:
            rng: The generator.
            thing: The topic; one of those with sentences of their own, or of the others, when None.
        """
        positive = rng.random() < 0.5
        if thing is None and rng.random() < 0.6:
            topic = rng.choice(self.told)
            name, good, bad = topic.name, topic.positive, topic.negative
        else:
            name = rng.choice(self.others) if thing is None else thing
            good, bad = (tuple(on_topic(text, name) for text in side) for side in (self.positive, self.negative))
        sides = rng.sample(good, _REPLIES), rng.sample(bad, _REPLIES)
        wished, opposite = sides if positive else sides[::-1]
        question = self.wording.dress(on_topic(rng.choice(self.questions), name), name, rng)
        replies = Replies(tuple(wished), tuple(opposite))
        return ReadingExample(Sentiment(name, positive), question, wished[0], replies=replies)


@cache
def load_moods() -> Moods:
    """The topics and questions of the training split."""
    names = load_names("train")
    wording = load_wording(names)
    topics = load_topics("train", FramePairs(load_frames("train"), names, wording))
    told = tuple(topic for topic in load_opinions().topics if split(topic.name) == "train")
    own = {topic.name for topic in told}
    table = tomllib.loads((Path(__file__).parent / "moods.toml").read_text(encoding="utf-8"))
    return Moods(
        told=told,
        others=tuple(name for group in topics.groups for name in group if name not in own),
        questions=topics.opinions,
        positive=tuple(table["positive"]),
        negative=tuple(table["negative"]),
        wording=wording,
    )
