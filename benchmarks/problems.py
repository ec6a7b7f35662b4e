"""The four problems of SERAC's table (Mitchell et al. 2022, sec. 4 and app. D), on the bundle's facts and opinions.

A problem is made for one split of the subjects. Its edits and what is out of their scope are of that split's subjects:
what is measured is of those kept for validation, in phrasings that the scope classifier was not trained on, and other
edits that only fill the memory are of the others. No edit of the memory changes what an out-of-scope probe asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

import numpy as np

from benchmarks.material import Known, alternatives, counterfact, known, moods, topics, unasked
from benchmarks.memories import Once
from demo.corpus import CLAIM
from demo.facts import Drift, Fact
from demo.opinions import load_opinions, on_topic
from demo.scope.splits import Split, split
from demo.suites import ANY_OTHER, OTHER_TOPIC, SAME_RELATION, SAME_SUBJECT
from editors.edit import Claim, EditDescriptor, QuestionAnswer, Sentiment, Statement
from editors.evaluation.cases import EDIT, ENTAILED, Case, InScope, OutOfScope, Replies

RANKED, NEAREST, ABOUT_TOPIC = "nearest 26 to 100", "nearest", "fact about the topic"

_OPINIONS_ASKED = 5
_SKIPPED, _RANKED, _TEMPERATURE = 25, 100, 0.1
"""Of the 100 questions nearest to an edit the authors' code leaves out the first 25, which may be paraphrases, and
draws from the others in proportion to exp(cosine / 0.1)."""
_POOL = 1500
"""Most questions among which the nearest are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem.

    Attributes:
        cases: Edits and probes to measure, of subjects kept for validation.
        tuning: The same of other subjects, to choose what a baseline needs chosen.
        fillers: Further edits, which no probe asks for.
    """

    name: str
    cases: tuple[Case, ...]
    tuning: tuple[Case, ...]
    fillers: tuple[EditDescriptor, ...]

    @property
    def of_mood(self) -> bool:
        """Whether its edits are of mood, to which no single answer is right."""
        return self.cases[0].replies is not None


def problem(name: str, *, cases: int, embed: Once[str], shared: Path | None = None) -> Problem:
    """One of `PROBLEMS`, always the same.

    Args:
        name: Of the problem.
        cases: Most edits to measure.
        embed: Sentence embeddings, by which near questions are found.
        shared: Folder of CounterFact's records, which then fill the memory as well.
    """
    build = PROBLEMS[name]
    measured, others = build("validation", embed, cases), build("train", embed, None)
    rng = Random(name)
    tuning = tuple(rng.sample(others, min(cases, len(others))))
    theirs = [(case.subject or "", case.edit) for case in others if case.edit is not None]
    more = [*(moods(rng) if name == CONV_SENT else []), *alternatives(rng), *counterfact(shared)]
    return Problem(name=name, cases=measured, tuning=tuning, fillers=tuple(unasked([*theirs, *more], measured)))


def _qa(of: Split, _: Once[str], count: int | None) -> tuple[Case, ...]:
    """In scope the edit's question and paraphrases; out of scope questions on any other fact."""
    here = known(of)

    def case(entry: Drift, rng: Random) -> Case:
        return _changed(
            entry,
            [InScope(ask, entry.new_object) for ask in here.paraphrases(entry.fact, rng)],
            [OutOfScope(here.question(f, rng), ANY_OTHER, f.object) for f in here.unrelated(entry.fact, rng, 2)],
        )

    return _cases("QA", here, count, case)


def _qa_hard(of: Split, embed: Once[str], count: int | None) -> tuple[Case, ...]:
    """In scope also claims that the edit settles; out of scope the questions nearest to it."""
    here, drawing = known(of), Random(f"QA-hard/{of}")
    pool = drawing.sample(here.lasting, min(_POOL, len(here.lasting)))
    asked = {here.question(fact, drawing): fact for fact in pool}
    questions = list(asked)
    vectors = embed(questions)

    def near(entry: Drift, rng: Random) -> list[OutOfScope]:
        cosines = vectors @ embed([entry.fact.prompts[0]])[0]
        order = np.argsort(-cosines, kind="stable")[:_RANKED].tolist()
        weights = np.exp(cosines[order[_SKIPPED:]] / _TEMPERATURE).tolist()
        ranked = dict.fromkeys(rng.choices(order[_SKIPPED:], weights, k=2))
        return [OutOfScope(questions[order[0]], NEAREST, asked[questions[order[0]]].object)] + [
            OutOfScope(questions[i], RANKED, asked[questions[i]].object) for i in ranked
        ]

    def case(entry: Drift, rng: Random) -> Case:
        own = here.same_subject(entry.fact)
        return _changed(
            entry,
            [
                *(InScope(ask, entry.new_object) for ask in here.paraphrases(entry.fact, rng)),
                *_settled(entry, [entry.new_object, entry.fact.object]),
            ],
            [
                *near(entry, rng),
                *(OutOfScope(here.question(f, rng), SAME_SUBJECT, f.object) for f in rng.sample(own, min(1, len(own)))),
            ],
        )

    return _cases("QA-hard", here, count, case)


def _fact_checking(of: Split, _: Once[str], count: int | None) -> tuple[Case, ...]:
    """Edits are statements, and claims with their labels; every probe is a claim.

    In scope are claims that follow from the edit or contradict it; out of scope claims about other facts, and, as
    hard ones, about the subject or the relation of the edit.
    """
    here = known(of)

    def case(entry: Drift, rng: Random) -> Case:
        fact, new = entry.fact, entry.new_object
        third = rng.choice([o for o in here.objects[fact.relation.name] if o not in {new, fact.object}])
        edits: list[tuple[EditDescriptor, list[str]]] = [
            (Claim(fact.statement(new), label=True), [new, fact.object, third]),
            (Statement(fact.statement(new)), [new, fact.object, third]),
            (Claim(fact.statement(), label=False), [fact.object]),  # which does not say what is true instead
        ]
        edit, settled = rng.choice(edits)
        return Case(
            id=_id(fact),
            edit=edit,
            in_scope=tuple(_settled(entry, settled)),
            out_of_scope=tuple(_claims_left_alone(here, entry, rng)),
            subject=fact.subject,
        )

    return _cases("FC", here, count, case)


def _conversation(of: Split, _: Once[str], count: int | None) -> tuple[Case, ...]:
    """Edits give a topic the mood that the base does not have.

    In scope the base is asked for its opinion on the topic; out of scope are opinions on other topics and, as hard
    ones, facts about the topic.
    """
    told, here, asked = load_opinions(), known(of), topics(of)
    edited = [topic for topic in told.topics if split(topic.name) == of]
    others = sorted({name for group in asked.groups for name in group} - {topic.name for topic in told.topics})

    cases = []
    for topic in edited[:count]:
        rng, edit = Random(f"ConvSent/{topic.name}"), Sentiment(topic.name, not topic.positive_mood)
        opinions = [on_topic(ask, topic.name) for ask in rng.sample(asked.opinions, _OPINIONS_ASKED)]
        wished = topic.sentences(positive=edit.positive)
        cases.append(
            Case(
                id=topic.name,
                edit=edit,
                in_scope=(InScope(edit.text, wished[0], EDIT), *(InScope(ask, wished[0]) for ask in opinions)),
                out_of_scope=(
                    *(OutOfScope(on_topic(rng.choice(asked.opinions), o), OTHER_TOPIC) for o in rng.sample(others, 2)),
                    *(OutOfScope(on_topic(ask, topic.name), ABOUT_TOPIC) for ask in rng.sample(asked.facts, 2)),
                    *(OutOfScope(here.question(f, rng), ANY_OTHER, f.object) for f in rng.sample(here.lasting, 1)),
                ),
                subject=topic.name,
                replies=Replies(wished, topic.sentences(positive=topic.positive_mood)),
            )
        )
    return tuple(cases)


QA, QA_HARD, FC, CONV_SENT = "QA", "QA-hard", "FC", "ConvSent"
PROBLEMS: Final = MappingProxyType({QA: _qa, QA_HARD: _qa_hard, FC: _fact_checking, CONV_SENT: _conversation})
"""By name: from a split, sentence embeddings and the most cases wanted (None wants all) to cases."""


def _cases(name: str, here: Known, count: int | None, case: Callable[[Drift, Random], Case]) -> tuple[Case, ...]:
    entries = Random(f"{name}/{here.of}").sample(here.changes, min(count or len(here.changes), len(here.changes)))
    return tuple(case(entry, Random(f"{name}/{_id(entry.fact)}")) for entry in entries)


def _changed(entry: Drift, in_scope: Iterable[InScope], out_of_scope: Iterable[OutOfScope]) -> Case:
    """A change as an edit by question and answer."""
    own = entry.fact.prompts[0]
    return Case(
        id=_id(entry.fact),
        edit=QuestionAnswer(own, entry.new_object, entry.fact.subject),
        in_scope=(InScope(own, entry.new_object, EDIT), *in_scope),
        out_of_scope=tuple(out_of_scope),
        subject=entry.fact.subject,
        previous=entry.fact.object,
    )


def _settled(entry: Drift, objects: Sequence[str]) -> list[InScope]:
    """Claims that a change settles: true of its new object, false of any other."""
    return [
        InScope(CLAIM.format(entry.fact.statement(each)), str(each == entry.new_object), ENTAILED) for each in objects
    ]


def _claims_left_alone(here: Known, entry: Drift, rng: Random) -> Iterable[OutOfScope]:
    for form, pool in (
        (ANY_OTHER, here.unrelated(entry.fact, rng, 2)),
        (SAME_RELATION, here.same_relation(entry.fact)),
        (SAME_SUBJECT, here.same_subject(entry.fact)),
    ):
        for fact in rng.sample(pool, min(2 if form == ANY_OTHER else 1, len(pool))):
            wrong = here.another(fact, rng)
            true = rng.random() < 0.5
            yield OutOfScope(CLAIM.format(fact.statement(fact.object if true else wrong)), form, str(true))


def _id(fact: Fact) -> str:
    return f"{fact.relation.name}/{fact.subject}"
