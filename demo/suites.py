"""The bundle's suites: what atlas-2018 knows, and the edits that have become due since, with probes of several kinds.

What is out of the scope of an edit is asked of facts that none of the edits changes, so that it stays out of scope
when many edits of a suite are in force at once. No two facts are asked for by the same prompt, so every target is the
only right answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from types import MappingProxyType
from typing import Final, TypeVar

from demo.corpus import CLAIM
from demo.facts import Drift, Fact, fill, load_world
from demo.opinions import Topic, load_opinions
from editors.edit import Claim, EditDescriptor, QuestionAnswer, Sentiment, Statement
from editors.evaluation.cases import EDIT, ENTAILED, PARAPHRASE, Case, InScope, OutOfScope, Replies
from editors.evaluation.datasets.forms import NEIGHBOUR

SAME_RELATION, SAME_SUBJECT, ANY_OTHER = "same relation", "same subject", "any other fact"
NEAR_NAME, LOOK_ALIKE, OTHER_TOPIC = "near name", "look-alike", "other topic"

T = TypeVar("T")

_PARAPHRASES = 3
_OF_A_FORM = 2
"""Most out-of-scope probes of one form in a case."""
_SHORT = 3
"""Words of so many letters or fewer (the, of, and) make no two names alike."""


@cache
def facts() -> tuple[Case, ...]:
    """What the base knows: each fact of 2018, in a phrasing trained on and in those held out; there is no edit."""
    return tuple(
        Case(
            id=_id(fact),
            in_scope=(
                InScope(fact.prompts[0], fact.object, EDIT),
                *(InScope(prompt, fact.object) for prompt in fact.held_out_prompts),
            ),
            subject=fact.subject,
        )
        for fact in load_world().facts
    )


@cache
def drift() -> tuple[Case, ...]:
    """What has changed since 2018, each change an edit; other facts, related and unrelated, are out of its scope."""
    return tuple(_drift(entry) for entry in load_world().drift)


@cache
def hard() -> tuple[Case, ...]:
    """The same edits: in scope what is furthest from them in words, out of scope what is nearest to them."""
    return tuple(_hard(entry) for entry in load_world().drift)


@cache
def claims() -> tuple[Case, ...]:
    """The same edits, in turn as answer, sentence and claim; claims that follow from them or contradict them."""
    return tuple(_claims(entry, number) for number, entry in enumerate(load_world().drift))


@cache
def opinions() -> tuple[Case, ...]:
    """On each topic the mood that the base does not have; other topics and facts are out of its scope."""
    return tuple(_opinion(topic) for topic in load_opinions().topics)


SUITES: Final[Mapping[str, Callable[[], Sequence[Case]]]] = MappingProxyType(
    {"facts": facts, "drift": drift, "hard": hard, "claims": claims, "opinions": opinions}
)
"""The suites by name: the only list. Each is made when first asked for, always the same, and kept."""

DESCRIPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "facts": "What the base knows: every fact, asked as trained and in phrasings held out. No edits.",
        "drift": "Every fact that has changed since 2018, as an edit; related and unrelated facts left alone.",
        "hard": "The same edits, asked in words far from theirs; look-alikes and near names left alone.",
        "claims": "The same edits in three kinds, and true-or-false claims that follow from them or contradict them.",
        "opinions": "The opposite mood on every topic; other topics and facts left alone.",
    }
)
"""What each suite asks, in a line."""


@dataclass(frozen=True, slots=True)
class _Lasting:
    """The facts of 2018 that no edit of the suites changes: all of them, and by what they share with an edit."""

    all: tuple[Fact, ...]
    by_relation: Mapping[str, tuple[Fact, ...]]
    by_subject: Mapping[str, tuple[Fact, ...]]
    by_word: Mapping[str, tuple[Fact, ...]]

    def same_subject(self, entry: Drift) -> list[Fact]:
        """Of the edit's subject, with answers that are neither its old nor its new one."""
        return [fact for fact in self.by_subject.get(entry.fact.subject, ()) if not _shares_answer(fact, entry)]

    def same_relation(self, entry: Drift) -> list[Fact]:
        """Of the edit's relation, likewise; so none is of its subject under another name."""
        return [fact for fact in self.by_relation[entry.fact.relation.name] if not _shares_answer(fact, entry)]

    def neighbours(self, entry: Drift) -> list[Fact]:
        """Of the edit's relation, with its old answer, which stays true of them (Meng et al. 2022, sec. 3.3)."""
        return [fact for fact in self.by_relation[entry.fact.relation.name] if fact.object == entry.fact.object]

    def unrelated(self, entry: Drift, rng: Random) -> list[Fact]:
        """A few drawn from all, of other relations and subjects."""
        return [fact for fact in rng.sample(self.all, 5 * _OF_A_FORM) if _unrelated(fact, entry.fact)]

    def near_names(self, entry: Drift) -> list[Fact]:
        """Of other relations and subjects, whose names share a word with the edit's subject; nearest first."""
        own = entry.fact
        sharing = {_id(fact): fact for word in _words(own.subject) for fact in self.by_word.get(word, ())}
        others = [f for f in sharing.values() if _unrelated(f, own) and not _shares_answer(f, entry)]
        return _nearest(own.subject, others, lambda fact: fact.subject)


@cache
def _lasting() -> _Lasting:
    world = load_world()
    changed = {(entry.fact.relation.name, entry.fact.subject) for entry in world.drift}
    lasting = tuple(fact for fact in world.facts if (fact.relation.name, fact.subject) not in changed)
    return _Lasting(
        lasting,
        _grouped(lasting, lambda fact: [fact.relation.name]),
        _grouped(lasting, lambda fact: [fact.subject]),
        _grouped(lasting, lambda fact: _words(fact.subject)),
    )


def _drift(entry: Drift) -> Case:
    rng, lasting, fact = Random(f"drift/{_id(entry.fact)}"), _lasting(), entry.fact
    asked = [*rng.sample(fact.prompts[1:], _PARAPHRASES), *fact.held_out_prompts]
    related = {
        NEIGHBOUR: lasting.neighbours(entry),
        SAME_RELATION: lasting.same_relation(entry),
        SAME_SUBJECT: lasting.same_subject(entry),
        ANY_OTHER: lasting.unrelated(entry, rng),
    }
    drawn = {form: rng.sample(pool, min(_OF_A_FORM, len(pool))) for form, pool in related.items()}
    return _edited(
        entry,
        asked,
        [OutOfScope(rng.choice(f.prompts), form, f.object) for form, found in drawn.items() for f in found],
    )


def _hard(entry: Drift) -> Case:
    lasting, fact = _lasting(), entry.fact
    own, *others = fact.prompts
    completions = [prompt for prompt in others if not prompt.endswith("?")]
    asked = _nearest(own, [*completions, *fact.held_out_prompts], str)[-_PARAPHRASES:]
    related = {
        SAME_RELATION: _nearest(fact.subject, lasting.same_relation(entry), lambda other: other.subject),
        SAME_SUBJECT: _nearest(own, lasting.same_subject(entry), lambda other: other.prompts[0]),
        NEAR_NAME: lasting.near_names(entry),
    }
    look_alike = OutOfScope(fill(fact.relation.neighbour, fact.subject), LOOK_ALIKE)
    probes = [
        OutOfScope(_nearest(own, other.prompts, str)[0], form, other.object)
        for form, found in related.items()
        for other in found[:_OF_A_FORM]
    ]
    return _edited(entry, asked, [look_alike, *probes])


def _edited(entry: Drift, asked: Iterable[str], out_of_scope: Iterable[OutOfScope]) -> Case:
    """A change as an edit by question and answer."""
    own = entry.fact.prompts[0]
    return Case(
        id=_id(entry.fact),
        edit=QuestionAnswer(own, entry.new_object, entry.fact.subject),
        in_scope=(InScope(own, entry.new_object, EDIT), *(InScope(prompt, entry.new_object) for prompt in asked)),
        out_of_scope=tuple(out_of_scope),
        subject=entry.fact.subject,
        previous=entry.fact.object,
    )


def _claims(entry: Drift, number: int) -> Case:
    fact, new, rng = entry.fact, entry.new_object, Random(f"claims/{_id(entry.fact)}")
    question, statement = fact.prompts[0], fact.statement(new)
    forms: tuple[tuple[EditDescriptor, str | None, str | None], ...] = (
        (QuestionAnswer(question, new, fact.subject), question, fact.object),
        (Statement(statement), None, None),
        (Claim(statement, label=True), CLAIM.format(statement), str(False)),
    )
    edit, own, previous = forms[number % len(forms)]
    answers = {question: new, CLAIM.format(statement): str(True)} | {
        CLAIM.format(fact.statement(obj)): str(False) for obj in (fact.object, _third(entry, rng))
    }
    return Case(
        id=_id(fact),
        edit=edit,
        in_scope=tuple(InScope(p, target, EDIT if p == own else ENTAILED) for p, target in answers.items()),
        out_of_scope=tuple(_claims_left_alone(entry, rng)),
        subject=fact.subject,
        previous=previous,
    )


def _third(entry: Drift, rng: Random) -> str:
    """What is neither the old nor the new answer."""
    return rng.choice(_lasting().same_relation(entry)).object


def _claims_left_alone(entry: Drift, rng: Random) -> Iterator[OutOfScope]:
    """True claims of related facts, and a false one of an unrelated fact."""
    lasting = _lasting()
    for form, pool in (
        (SAME_RELATION, lasting.same_relation(entry)),
        (SAME_SUBJECT, lasting.same_subject(entry)),
    ):
        for fact in rng.sample(pool, min(1, len(pool))):
            yield OutOfScope(CLAIM.format(fact.statement()), form, str(True))
    other = lasting.unrelated(entry, rng)[0]
    wrong = rng.choice([f.object for f in lasting.by_relation[other.relation.name] if f.object != other.object])
    yield OutOfScope(CLAIM.format(other.statement(wrong)), ANY_OTHER, str(False))


def _opinion(topic: Topic) -> Case:
    told, rng = load_opinions(), Random(f"opinions/{topic.name}")
    edit = Sentiment(topic.name, not topic.positive_mood)
    wished = topic.sentences(positive=edit.positive)
    asked = [edit.text, *(question.format(topic=topic.name) for question in told.held_out_questions)]
    others = rng.sample([other.name for other in told.topics if other is not topic], _OF_A_FORM)
    unrelated = rng.sample(_lasting().all, _OF_A_FORM)
    return Case(
        id=topic.name,
        edit=edit,
        in_scope=tuple(
            InScope(prompt, wished[place % len(wished)], EDIT if prompt == edit.text else PARAPHRASE)
            for place, prompt in enumerate(asked)
        ),
        out_of_scope=(
            *(OutOfScope(rng.choice(told.questions).format(topic=other), OTHER_TOPIC) for other in others),
            *(OutOfScope(rng.choice(fact.prompts), ANY_OTHER, fact.object) for fact in unrelated),
        ),
        subject=topic.name,
        replies=Replies(wished, topic.sentences(positive=topic.positive_mood)),
    )


def _id(fact: Fact) -> str:
    return f"{fact.relation.name}/{fact.subject}"


def _unrelated(fact: Fact, other: Fact) -> bool:
    return fact.relation.name != other.relation.name and fact.subject != other.subject


def _shares_answer(fact: Fact, entry: Drift) -> bool:
    return fact.object in {entry.fact.object, entry.new_object}


def _grouped(facts: Iterable[Fact], keys: Callable[[Fact], Iterable[str]]) -> dict[str, tuple[Fact, ...]]:
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        for key in keys(fact):
            groups.setdefault(key, []).append(fact)
    return {key: tuple(group) for key, group in groups.items()}


def _words(name: str) -> list[str]:
    return sorted({word for word in name.lower().split() if len(word) > _SHORT})


def _nearest(text: str, things: Iterable[T], named: Callable[[T], str]) -> list[T]:
    """The things, those first whose names are most like the text: Dice's coefficient of their trigrams."""
    own = _trigrams(text)

    def unlikeness(thing: T) -> float:
        theirs = _trigrams(named(thing))
        return -2 * len(own & theirs) / (len(own) + len(theirs))

    return sorted(things, key=unlikeness)


@cache
def _trigrams(text: str) -> frozenset[str]:
    padded = f"  {text.lower()} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))
