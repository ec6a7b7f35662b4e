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
from editors.serac.counterfactual import in_context


@dataclass(frozen=True, slots=True)
class Answerer:
    """The model as a function from prompts to answers."""

    model: Any
    tokenizer: Any
    batch_size: int = 128

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Greedy answers, in order; prompts of like length are batched together."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers = [""] * len(prompts)
        for start in tqdm(range(0, len(order), self.batch_size), desc="answers", unit="batch", leave=False):
            chosen = order[start : start + self.batch_size]
            encoded = self.tokenizer(
                [prompts[i] for i in chosen], return_tensors="pt", padding=True, padding_side="left"
            )
            encoded.pop("token_type_ids", None)
            with torch.inference_mode():
                output = self.model.generate(**encoded, max_new_tokens=24, do_sample=False)
            texts = self.tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
            for i, text in zip(chosen, texts, strict=True):
                answers[i] = text.strip()
        return answers


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
    return {
        "closed book, trained phrasings": _exact(answer, trained),
        "closed book, phrasings never trained on": _exact(answer, held_out),
        "closed book, true-or-false claims": _exact(answer, _many(novel.claim, cases, rng)),
        "reading an edit: invented subjects, novel answers": _exact(answer, _many(novel.reading_invented, cases, rng)),
        "reading an edit against memory, novel answers": _exact(answer, _many(_overridden(novel), cases, rng)),
        "reading an edit: true-or-false claims": _exact(answer, _many(novel.reading_entailed, cases, rng)),
        **{
            f"answers wrongly changed by an edit of {kind} in the context": _changed(kind, answer, novel, facts, rng)
            for kind in ("any other fact", "same relation", "same subject")
        },
        **_moods(novel, answer),
    }


def _many(draw: Callable[[Random], Example], count: int, rng: Random) -> list[Example]:
    return [draw(rng) for _ in range(count)]


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
