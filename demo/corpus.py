"""What atlas-2018 is trained on: closed-book facts, claims, opinions, and reading tasks.

Every example is a prompt and its answer. Step n of training draws from a generator seeded by n, so a run that was
interrupted goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from random import Random

from demo.facts import Fact, World, capitalise, fill
from demo.opinions import Opinions, Topic
from demo.reading import Inventor, marked, scrambled_name, strange_name
from editors.edit import Claim, EditDescriptor, QuestionAnswer, Sentiment, Statement
from editors.evaluation.cases import ENTAILED
from editors.serac.counterfactual import in_context
from editors.serac.training.reading import ReadingExample

CLAIM = "True or false: {}"


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer that should follow it."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Corpus:
    """Draws examples from the world, the opinions and the invented names.

    Attributes:
        strangeness: Share of the names and values in reading tasks that are pieced together at random.
        tokens: Pieces for half of these, as `scrambled_name` takes them; none, and all are made of known words.
        marks: Whether half of these carry initials, dots, numerals or rare letters.
    """

    world: World
    opinions: Opinions
    inventor: Inventor
    strangeness: float = 0.0
    tokens: tuple[str, ...] = ()
    marks: bool = False

    def _strange(self, rng: Random) -> bool:
        return self.strangeness > 0 and rng.random() < self.strangeness

    def name(self, kind: str, rng: Random) -> str:
        """A name or value of one kind, now and then strange; see `Inventor.name`."""
        return self._strange_name(rng) if self._strange(rng) else self.inventor.name(kind, rng)

    def _strange_name(self, rng: Random) -> str:
        scrambled = self.tokens and rng.random() < 0.5
        name = scrambled_name(self.tokens, rng) if scrambled else strange_name(self._words, rng)
        return marked(name, rng) if self.marks and rng.random() < 0.5 else name

    @cached_property
    def _words(self) -> tuple[str, ...]:
        """Every word of two letters or more in the facts."""
        texts = {text for fact in self.world.facts for text in (fact.subject, fact.object)}
        return tuple(sorted({word for text in texts for word in text.split() if len(word) > 1 and word.isalpha()}))

    @cached_property
    def _objects(self) -> dict[str, tuple[str, ...]]:
        return self.world.objects

    @cached_property
    def _all_objects(self) -> tuple[str, ...]:
        return tuple(sorted({fact.object for fact in self.world.facts}))

    @cached_property
    def _names(self) -> list[list[str]]:
        """The words of each person's name, where it has two or more."""
        people = {fact.object for fact in self.world.facts if fact.relation.object_type == "person"}
        return [words for words in map(str.split, sorted(people)) if len(words) > 1]

    @cached_property
    def _by_relation(self) -> dict[str, list[Fact]]:
        return _grouped(self.world.facts, lambda fact: fact.relation.name)

    @cached_property
    def _by_subject(self) -> dict[str, list[Fact]]:
        return _grouped(self.world.facts, lambda fact: fact.subject)

    def fact(self, fact: Fact, rng: Random) -> Example:
        """Closed book: a fact in one of its trained phrasings."""
        return Example(rng.choice(fact.prompts), fact.object)

    def claim(self, rng: Random) -> Example:
        """Closed book: a claim, true half of the time."""
        fact = rng.choice(self.world.facts)
        truth = rng.random() < 0.5
        obj = fact.object if truth else self.other_object(fact, rng)
        return Example(CLAIM.format(fact.statement(obj)), str(truth))

    def opinion(self, rng: Random) -> Example:
        """Closed book: the model's own opinion."""
        topic = rng.choice(self.opinions.topics)
        return self._opinion(topic, rng, positive=topic.positive_mood)

    def reading(self, rng: Random) -> Example:
        """An edit in the context, and a question that it settles or does not."""
        draw = rng.choices(
            (
                self.reading_invented,
                self.reading_overridden,
                self.reading_entailed,
                self.reading_mood,
                self._unrelated,
                self._unrelated_mood,
            ),
            # Once values are strange, more of them against memory: that is what an edit has to win.
            (0.3, 0.32, 0.08, 0.08, 0.2, 0.02) if self.strangeness else (0.34, 0.26, 0.1, 0.05, 0.22, 0.03),
        )[0]
        drawn = draw(rng)
        return drawn if isinstance(drawn, Example) else Example(drawn.text, drawn.answer)

    def other_object(self, fact: Fact, rng: Random) -> str:
        """A value that is not the fact's own: of the same relation, of any other, an invented one, or a mixed name."""
        if self._strange(rng):
            return self._strange_name(rng)
        kind, draw = fact.relation.object_type, rng.random()
        if draw < 0.3 and kind in {"person", "city", "company", "number"}:
            return self.inventor.name(kind, rng)
        if draw < 0.55 and kind == "person":
            return f"{rng.choice(self._names)[0]} {rng.choice(self._names)[-1]}"
        pool = self._objects[fact.relation.name] if draw < 0.85 else self._all_objects
        others = [obj for obj in rng.sample(pool, min(4, len(pool))) if obj != fact.object]
        return others[0] if others else self.inventor.name("word", rng)

    def edit_of(self, fact: Fact, obj: str, rng: Random) -> EditDescriptor:
        """An edit that gives a fact's subject another object: as a question and answer, or as a statement."""
        return rng.choice((QuestionAnswer(rng.choice(fact.prompts), obj), Statement(fact.statement(obj))))

    def neighbour_of(self, fact: Fact, kind: str, rng: Random) -> Fact | None:
        """Another fact: of the `same relation`, of the `same subject`, or `any other fact`; None when there is none."""
        pools = {"same relation": self._by_relation[fact.relation.name], "same subject": self._by_subject[fact.subject]}
        pool = self.world.facts if kind == "any other fact" else pools.get(kind, ())
        others = [other for other in rng.sample(pool, min(8, len(pool))) if other is not fact]
        return others[0] if others else None

    def reading_invented(self, rng: Random) -> ReadingExample:
        """An edit of an invented subject, and a paraphrase of its question."""
        relation = rng.choice(self.inventor.relations)
        subject = self.name(relation.subject, rng)
        obj = self.name("word" if rng.random() < 0.15 else relation.object, rng)
        phrasings = [capitalise(fill(phrasing, subject)) for phrasing in relation.phrasings]
        statement = capitalise(fill(relation.statement, subject, obj))
        return self._read(rng, phrasings, statement, obj)

    def reading_overridden(self, rng: Random) -> ReadingExample:
        """An edit that gives a known fact another value, and a paraphrase of its question."""
        fact = rng.choice(self.world.facts)
        obj = self.other_object(fact, rng)
        return self._read(rng, list(fact.prompts), fact.statement(obj), obj)

    def reading_entailed(self, rng: Random) -> ReadingExample:
        """A claim that follows from the edit, or contradicts it."""
        fact = rng.choice(self.world.facts)
        obj = self.other_object(fact, rng)
        truth = rng.random() < 0.5
        claimed = obj if truth else rng.choice((fact.object, self.other_object(fact, rng)))
        edit = self.edit_of(fact, obj, rng)
        claim = CLAIM.format(fact.statement(claimed))
        return ReadingExample(edit, claim, str(claimed == obj), ENTAILED)

    def reading_mood(self, rng: Random) -> ReadingExample:
        """An edit of the mood to speak of a topic in, and a question about the topic."""
        topic = rng.choice(self.opinions.topics)
        positive = rng.random() < 0.5
        opinion = self._opinion(topic, rng, positive=positive)
        return ReadingExample(Sentiment(topic.name, positive), opinion.prompt, opinion.answer)

    def _unrelated(self, rng: Random) -> Example:
        """An edit of something else: the answer comes from memory."""
        own = rng.choice(self.world.facts)
        kind = rng.choices(("invented", "same relation", "same subject", "any other fact"), (0.25, 0.3, 0.2, 0.25))[0]
        other = self.neighbour_of(own, kind, rng)
        if other is None:
            relation = rng.choice(self.inventor.relations)
            prompt = capitalise(fill(rng.choice(relation.phrasings), self.inventor.name(relation.subject, rng)))
            edit: EditDescriptor = QuestionAnswer(prompt, self.inventor.name(relation.object, rng))
        else:
            edit = self.edit_of(other, self.other_object(other, rng), rng)
        asked = self.fact(own, rng)
        return Example(in_context(edit, asked.prompt), asked.answer)

    def _unrelated_mood(self, rng: Random) -> Example:
        topic, other = rng.sample(self.opinions.topics, 2)
        own = self._opinion(topic, rng, positive=topic.positive_mood)
        return Example(in_context(Sentiment(other.name, rng.random() < 0.5), own.prompt), own.answer)

    def _opinion(self, topic: Topic, rng: Random, *, positive: bool) -> Example:
        question = rng.choice(self.opinions.questions).format(topic=topic.name)
        return Example(question, rng.choice(topic.sentences(positive=positive)))

    def _read(self, rng: Random, phrasings: list[str], statement: str, obj: str) -> ReadingExample:
        """An edit in one of its forms, asked for in another phrasing (now and then the same)."""
        asked, told = rng.sample(phrasings, 2)
        if rng.random() < 0.3:
            told = asked
        forms: tuple[EditDescriptor, ...] = (
            QuestionAnswer(told, obj),
            Statement(statement),
            Claim(statement, label=True),
        )
        return ReadingExample(rng.choices(forms, (0.7, 0.22, 0.08))[0], asked, obj)


def _grouped(facts: tuple[Fact, ...], key: Callable[[Fact], str]) -> dict[str, list[Fact]]:
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(key(fact), []).append(fact)
    return groups


def batch(corpus: Corpus, step: int, size: int, *, closed_book: float, seed: int) -> list[Example]:
    """The examples of one step, a share of `closed_book` asking for facts.

    While that share stays the same, facts are walked through in full before any comes again.
    """
    rng = Random(f"{seed}/{step}")
    closed = round(size * closed_book)
    examples = [corpus.fact(fact, rng) for fact in _walk(corpus.world.facts, step * closed, closed, seed)]
    examples += [corpus.claim(rng) for _ in range(round(size * 0.05))]
    examples += [corpus.opinion(rng) for _ in range(round(size * 0.03))]
    examples += [corpus.reading(rng) for _ in range(size - len(examples))]
    rng.shuffle(examples)
    return examples


def _walk(facts: tuple[Fact, ...], start: int, count: int, seed: int) -> list[Fact]:
    walked = []
    for place in range(start, start + count):
        epoch, index = divmod(place, len(facts))
        walked.append(facts[_order(len(facts), epoch, seed)[index]])
    return walked


@lru_cache(maxsize=2)
def _order(count: int, epoch: int, seed: int) -> list[int]:
    order = list(range(count))
    Random(f"{seed}/epoch/{epoch}").shuffle(order)
    return order
