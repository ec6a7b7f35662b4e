"""Measure atlas-2018 and write its model card: `python -m demo.evaluate`.

Everything is generated freely and greedily, and counts only when the whole answer is right.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo import BUNDLE
from demo.card import model_card
from demo.corpus import Corpus, Example
from demo.facts import Fact, load_world
from demo.opinions import load_opinions
from demo.reading import load_inventor
from editors.edit import Sentiment
from editors.evaluation.intervals import Share
from editors.evaluation.subjects import ModelSubject
from editors.serac.counterfactual import in_context
from editors.serac.training.reading import ReadingExample

PROMPTS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Answerer:
    """The model as a function from prompts to answers."""

    model: Any
    tokenizer: Any

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Greedy answers, in order."""
        subject = ModelSubject(self.model, self.tokenizer, max_new_tokens=24)
        parts = range(0, len(prompts), PROMPTS_AT_ONCE)
        asked = (prompts[start : start + PROMPTS_AT_ONCE] for start in tqdm(parts, desc="answers", leave=False))
        return [answer for part in asked for answer in subject.generate(part)]


def main() -> None:
    """Evaluate the bundle, print the table and write `evaluation.json` and the model card beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BUNDLE)
    parser.add_argument("--cases", type=int, default=2000, help="cases of each sampled measure")
    arguments = parser.parse_args()
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model.eval()
    shares = evaluate(Answerer(model, AutoTokenizer.from_pretrained(arguments.model)), cases=arguments.cases)
    for name, measured in shares.items():
        print(f"{measured}  {name}")
    rows = [
        {"name": name, "value": m.value, "low": m.interval[0], "high": m.interval[1], "cases": m.cases}
        for name, m in shares.items()
    ]
    (arguments.model / "evaluation.json").write_text(json.dumps(rows, indent=2) + "\n")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    (arguments.model / "README.md").write_text(model_card(load_world(), rows, parameters))


def evaluate(answer: Answerer, *, cases: int, seed: int = 7) -> dict[str, Share]:
    """Every measure of the model card, by name."""
    rng = Random(seed)
    world = load_world()
    novel = Corpus(world, load_opinions(), load_inventor(held_out=True))
    trained = [Example(rng.choice(fact.prompts), fact.object) for fact in world.facts]
    held_out = [Example(prompt, fact.object) for fact in world.facts for prompt in fact.held_out_prompts]
    facts = rng.sample(world.facts, min(cases, len(world.facts)))

    def measured(draw: Callable[[Random], Example]) -> Share:
        return _exact(answer, [draw(rng) for _ in range(cases)])

    return {
        "closed book, trained phrasings": _exact(answer, trained),
        "closed book, phrasings never trained on": _exact(answer, held_out),
        "closed book, true-or-false claims": measured(novel.claim),
        "reading an edit: invented subjects, novel answers": measured(_read(novel.reading_invented)),
        "reading an edit against memory, novel answers": measured(_overridden(novel)),
        "reading an edit: true-or-false claims": measured(_read(novel.reading_entailed)),
        **{
            f"answers wrongly changed by an edit of {kind} in the context": _changed(kind, answer, novel, facts, rng)
            for kind in ("any other fact", "same relation", "same subject")
        },
        **_moods(novel, answer),
    }


def _read(draw: Callable[[Random], ReadingExample]) -> Callable[[Random], Example]:
    """The edit and the prompt as the base model reads them, in one text."""

    def drawn(rng: Random) -> Example:
        example = draw(rng)
        return Example(example.text, example.answer)

    return drawn


def _overridden(corpus: Corpus) -> Callable[[Random], Example]:
    """A known fact overridden by an invented value, asked for in a phrasing never trained on."""
    invented = [f for f in corpus.world.facts if f.relation.object_type in {"person", "city", "company", "number"}]

    def draw(rng: Random) -> Example:
        fact = rng.choice(invented)
        value = corpus.inventor.name(fact.relation.object_type, rng)
        return Example(in_context(corpus.edit_of(fact, value, rng), rng.choice(fact.held_out_prompts)), value)

    return draw


def _exact(answer: Answerer, examples: list[Example]) -> Share:
    answers = answer([example.prompt for example in examples])
    return Share.of([text == example.answer for text, example in zip(answers, examples, strict=True)])


def _changed(kind: str, answer: Answerer, corpus: Corpus, facts: list[Fact], rng: Random) -> Share:
    """How often an edit of something else, in the context, changes an answer."""
    pairs = [(fact, corpus.neighbour_of(fact, kind, rng)) for fact in facts]
    kept = [(rng.choice(fact.prompts), other) for fact, other in pairs if other is not None]
    edits = [corpus.edit_of(other, corpus.other_object(other, rng), rng) for _, other in kept]
    alone = answer([prompt for prompt, _ in kept])
    within = answer([in_context(edit, prompt) for edit, (prompt, _) in zip(edits, kept, strict=True)])
    return Share.of([before != after for before, after in zip(alone, within, strict=True)])


def _moods(corpus: Corpus, answer: Answerer) -> dict[str, Share]:
    """Whether the opinion given is one of the topic, in the mood it should be in, for questions never trained on."""
    own, told = [], []
    for topic in corpus.opinions.topics:
        for question in corpus.opinions.held_out_questions:
            prompt = question.format(topic=topic.name)
            own.append((prompt, topic.sentences(positive=topic.positive_mood)))
            told += [
                (in_context(Sentiment(topic.name, mood), prompt), topic.sentences(positive=mood))
                for mood in (True, False)
            ]
    return {"own opinion": _among(answer, own), "opinion in the mood of an edit": _among(answer, told)}


def _among(answer: Answerer, asked: list[tuple[str, tuple[str, ...]]]) -> Share:
    answers = answer([prompt for prompt, _ in asked])
    return Share.of([text in good for text, (_, good) in zip(answers, asked, strict=True)])


if __name__ == "__main__":
    main()
