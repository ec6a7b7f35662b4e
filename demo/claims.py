"""Claims that an edit settles: those that follow from it, and those that contradict it.

An edit that says what is true settles every claim about that. One that calls a claim false says no more than this, so
only the same claim is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.corpus import CLAIM, Corpus
from demo.facts import capitalise, fill
from demo.scope.kinds import FramePairs, filled
from editors.edit import Claim, EditDescriptor, QuestionAnswer, Statement
from editors.evaluation.cases import ENTAILED
from editors.serac.training.reading import ReadingExample

_VERDICTS = (
    "{q} True or false?", "Fact check: {q}", "Claim: {q} True or false?", "Please verify: {q}", "t/f: {q}",
    "True or false? {q}", "Decide whether this is true or false: {q}", "Right or wrong? {q}",
)  # fmt: skip
"""Asked like this, a claim is True or False."""
_CONFIRMATIONS = ("{q} Is that right?", "{q} Is that so?", "{q} Is that correct?", "Is the following correct? {q}",
                  "{q} Yes or no?", "Someone told me this: {q} Is it true?")  # fmt: skip
"""Asked like this, the answer is Yes or No."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something that can be said with different values.

    Attributes:
        state: Says it with a value.
        questions: Ask for the value.
        value: What the edit gives it.
        others: Values that contradict it.
        polar: Ask whether it is a value.
    """

    state: Callable[[str], str]
    questions: tuple[str, ...]
    value: str
    others: tuple[str, ...]
    polar: Callable[[str], str] | None = None


def draw_claim(corpus: Corpus, frames: FramePairs, rng: Random) -> ReadingExample:
    """An edit, and a claim that it settles."""
    told = rng.choices((_of_fact, _of_invention, _of_frame), (0.6, 0.2, 0.2))[0](corpus, frames, rng)
    if rng.random() < 0.25:
        denied = rng.choice((told.value, *told.others))
        edit: EditDescriptor = Claim(told.state(denied), label=False)
        return _ask(told, edit, denied, rng, holds=False)
    statement = told.state(told.value)
    edits = (
        QuestionAnswer(rng.choice(told.questions), told.value),
        Statement(statement),
        Claim(statement, label=True),
    )
    edit = rng.choices(edits, (0.35, 0.3, 0.35))[0]
    if rng.random() < 0.56:
        return _ask(told, edit, told.value, rng, holds=True)
    other = rng.choice(told.others)
    missed = near_miss(told.value, other, rng) if rng.random() < 0.3 else None
    return _ask(told, edit, missed or other, rng, holds=False)


def near_miss(value: str, other: str, rng: Random) -> str | None:
    """A value that shares all words but one with another, or None where it has one word alone."""
    words = value.split()
    if len(words) < 2:
        return None
    words[rng.randrange(len(words))] = rng.choice(other.split())
    missed = " ".join(words)
    return None if missed.casefold() == value.casefold() else missed


def _ask(told: Told, edit: EditDescriptor, claimed: str, rng: Random, *, holds: bool) -> ReadingExample:
    """The claim as a question, in the words that most often ask for it or in others."""
    statement, draw = told.state(claimed), rng.random()
    if told.polar and draw < 0.4:
        return ReadingExample(edit, told.polar(claimed), "Yes" if holds else "No", ENTAILED)
    if draw < 0.6:
        return ReadingExample(edit, CLAIM.format(statement), str(holds), ENTAILED)
    if draw < 0.85:
        return ReadingExample(edit, rng.choice(_VERDICTS).format(q=statement), str(holds), ENTAILED)
    return ReadingExample(edit, rng.choice(_CONFIRMATIONS).format(q=statement), "Yes" if holds else "No", ENTAILED)


def _of_fact(corpus: Corpus, _: FramePairs, rng: Random) -> Told:
    """A fact that the base knows, with another value: its own is what memory says against the edit."""
    fact = rng.choice(corpus.world.facts)
    value = corpus.other_object(fact, rng)
    others = (fact.object, fact.object, *(corpus.other_object(fact, rng) for _ in range(2)))
    return Told(fact.statement, fact.prompts, value, _unlike(value, others, corpus, rng))


def _of_invention(corpus: Corpus, _: FramePairs, rng: Random) -> Told:
    relation = rng.choice(corpus.inventor.relations)
    subject = corpus.name(relation.subject, rng)
    value, *others = [corpus.name(relation.object, rng) for _ in range(3)]
    questions = tuple(capitalise(fill(phrasing, subject)) for phrasing in relation.phrasings)
    return Told(
        lambda each: capitalise(fill(relation.statement, subject, each)),
        questions,
        value,
        _unlike(value, others, corpus, rng),
    )


def _of_frame(corpus: Corpus, frames: FramePairs, rng: Random) -> Told:
    scene = frames.scene(rng, stated=False)
    while not scene.value:
        scene = frames.scene(rng, stated=False)
    frame = scene.frame

    def say(template: str, value: str) -> str:
        return capitalise(filled(template, scene.subject, value))

    others = [frames.value(frame, rng) for _ in range(2)]
    polar = rng.choice(frame.polar) if frame.polar else ""
    return Told(
        lambda value: say(frame.statement, value),
        tuple(say(phrasing, scene.value) for phrasing in frame.descriptors),
        scene.value,
        _unlike(scene.value, others, corpus, rng),
        (lambda value: say(polar, value)) if polar else None,
    )


def _unlike(value: str, others: tuple[str, ...] | list[str], corpus: Corpus, rng: Random) -> tuple[str, ...]:
    """Those that are not the value; an invented word where there are none."""
    kept = tuple(other for other in others if other.casefold() != value.casefold())
    return kept or (corpus.inventor.name("word", rng),)
