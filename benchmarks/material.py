"""What the problems are made of: what the base knows of a split's subjects, and edits that fill memories."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random

from demo.facts import Drift, Fact, fill, load_world
from demo.opinions import load_opinions
from demo.scope.frames import load_frames
from demo.scope.kinds import FramePairs
from demo.scope.names import load_names
from demo.scope.sentiment import Topics, load_topics
from demo.scope.shared import load_shared
from demo.scope.splits import Split, split
from demo.scope.wording import load_wording
from editors.edit import EditDescriptor, QuestionAnswer, Sentiment
from editors.evaluation.cases import Case

_PARAPHRASES = 2
_WORD = re.compile(r"\w+")

Named = tuple[str, EditDescriptor]
"""What an edit is about, and the edit."""


@dataclass(frozen=True)
class Known:
    """What the base knows of one split's subjects.

    Attributes:
        changes: Facts that have changed since: the edits.
        lasting: All others, which no edit of a problem changes.
        asked: By relation, the phrasings that the classifier met in this split alone.
    """

    of: Split
    changes: tuple[Drift, ...]
    lasting: tuple[Fact, ...]
    asked: dict[str, tuple[str, ...]]

    def question(self, fact: Fact, rng: Random) -> str:
        """The fact asked in one of the split's phrasings."""
        return fill(rng.choice(self.asked.get(fact.relation.name, fact.relation.train)), fact.subject)

    def paraphrases(self, fact: Fact, rng: Random) -> list[str]:
        """A few of the split's phrasings, other than the one that edits are written in."""
        asked = [
            fill(ask, fact.subject) for ask in self.asked.get(fact.relation.name, ()) if ask != fact.relation.train[0]
        ]
        return rng.sample(asked, min(_PARAPHRASES, len(asked)))

    def same_subject(self, fact: Fact) -> list[Fact]:
        """Other lasting facts about its subject."""
        return self._by_subject.get(fact.subject, [])

    def same_relation(self, fact: Fact) -> list[Fact]:
        """The same of other subjects."""
        return self._by_relation.get(fact.relation.name, [])

    def unrelated(self, fact: Fact, rng: Random, count: int) -> list[Fact]:
        """Facts of other relations about other subjects."""
        drawn = rng.sample(self.lasting, 8 * count)
        return [o for o in drawn if o.relation is not fact.relation and o.subject != fact.subject][:count]

    def another(self, fact: Fact, rng: Random) -> str:
        """An object of the fact's relation other than its own."""
        return rng.choice([each for each in self.objects[fact.relation.name] if each != fact.object])

    @cached_property
    def objects(self) -> dict[str, tuple[str, ...]]:
        """The objects of each relation, of all subjects."""
        return load_world().objects

    @cached_property
    def _by_subject(self) -> dict[str, list[Fact]]:
        return _grouped(self.lasting, lambda fact: fact.subject)

    @cached_property
    def _by_relation(self) -> dict[str, list[Fact]]:
        return _grouped(self.lasting, lambda fact: fact.relation.name)


@cache
def known(of: Split) -> Known:
    """What the base knows of the subjects of a split."""
    world = load_world()
    changed = {(entry.fact.relation.name, entry.fact.subject) for entry in world.drift}
    return Known(
        of,
        tuple(entry for entry in world.drift if split(entry.fact.subject) == of),
        tuple(
            fact
            for fact in world.facts
            if split(fact.subject) == of and (fact.relation.name, fact.subject) not in changed
        ),
        {frame.name: frame.asked for frame in load_frames(of) if frame.name in world.relations},
    )


@cache
def topics(of: Split) -> Topics:
    """Topics of a split, and its ways to ask for an opinion or a fact."""
    names = load_names(of)
    return load_topics(of, FramePairs(load_frames(of), names, load_wording(names)))


def moods(rng: Random) -> list[Named]:
    """Edits of mood on topics of which the base has no opinion."""
    names = sorted({name for group in topics("train").groups for name in group})
    own = {topic.name for topic in load_opinions().topics}
    return [(name, Sentiment(name, rng.random() < 0.5)) for name in names if name not in own]


def alternatives(rng: Random) -> list[Named]:
    """Every lasting fact of the training split, edited to another object of its relation."""
    here = known("train")
    drawn = rng.sample(here.lasting, len(here.lasting))
    return [(f.subject, QuestionAnswer(f.prompts[0], here.another(f, rng), f.subject)) for f in drawn]


def _grouped(facts: Iterable[Fact], key: Callable[[Fact], str]) -> dict[str, list[Fact]]:
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(key(fact), []).append(fact)
    return groups


def counterfact(shared: Path | None) -> list[Named]:
    """CounterFact's edits on subjects of the training split; none without its folder."""
    if shared is None:
        return []
    records, _ = load_shared(shared, "train", load_wording(load_names("train")))
    return [(r.subject, QuestionAnswer(r.prompt, r.target, r.subject)) for r in records.records]


def unasked(edits: Iterable[Named], cases: Sequence[Case]) -> list[EditDescriptor]:
    """The edits whose subjects no probe or edit of the cases names, each text once."""
    texts = [probe.prompt for case in cases for probe in case.probes]
    named = " | ".join(_words(text) for text in (*texts, *(case.subject or "" for case in cases)))
    kept = {edit.text: edit for subject, edit in edits if _words(subject.removeprefix("the ")) not in named}
    return list(kept.values())


def _words(text: str) -> str:
    """The text's words alone, set off by spaces, so that names can be looked for."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "
