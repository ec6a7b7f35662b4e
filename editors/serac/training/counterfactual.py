"""Train a counterfactual model h_psi: given an edit and a prompt in its scope, answer as if the edit held.

As in SERAC (Mitchell et al. 2022, sec. 3.2) it is trained by itself and supervised, from any checkpoint that generates
text: causal, or with an encoder and a decoder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from editors.edit import Sentiment
from editors.errors import InvalidCheckpoint, InvalidTrainingData
from editors.evaluation.cases import Case
from editors.evaluation.datasets import read_cases
from editors.evaluation.intervals import Share
from editors.evaluation.sentiment import in_wished_mood
from editors.model.generation import continue_greedily
from editors.model.loading import BaseModel, load_counterfactual
from editors.serac.training.reading import CounterfactualRecipe, ReadingExample, fit

LEAST_EXAMPLES = 100
"""Fewer than these teach a model nothing that it could be judged by."""
_MARK = "counterfactual.json"
"""The card: what tells a folder that was written here from one that must not be overwritten."""
_ANSWER_TOKENS = 32
_MOOD = "mood"
"""The form, in the card, of prompts that come with replies."""


def train_counterfactual(
    cases: Path,
    start: str | Path,
    output: Path,
    recipe: CounterfactualRecipe,
    *,
    format_name: str = "jsonl",
    resume: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Train on the in-scope probes of a data set, and write the model and its card.

    The output stays as it was until training has ended; beside it lies a checkpoint while training lasts.

    Args:
        cases: A data set; see `editors.evaluation.datasets`.
        start: The model to begin with, a folder or a Hugging Face id.
        output: The folder to write.
        recipe: How to train.
        format_name: Of the data set.
        resume: Go on from the checkpoint if there is one; without it, one that is there is an error.
        device: `cpu`, `cuda`, ...; `auto` takes a GPU when there is one.

    Returns:
        The card: what it was trained with, and its right answers on cases that it was not trained on, by form.

    Raises:
        InvalidDataset: The data set cannot be used.
        InvalidTrainingData: It has too few examples, or the output holds something else.
        InvalidCheckpoint: The checkpoint is damaged, of another training, or there and not to be resumed.
        ModelNotFound, DeviceUnavailable: There is nothing to begin with, or nowhere to run it.
    """
    checkpoint = output.with_suffix(".checkpoint")
    _refuse_to_overwrite(output, checkpoint, resume=resume)
    train, validation = _split(cases, read_cases(cases, format_name), recipe)
    model = load_counterfactual(start, device=device, dtype="float32")
    made_by = {
        **asdict(recipe),
        "started_from": model.name,
        "cases": hashlib.sha256(cases.read_bytes()).hexdigest(),
        "training_examples": len(train),
    }
    before = _exact(model, validation)
    started = [parameter.detach().clone() for parameter in model.model.parameters()]
    for parameter in model.model.parameters():
        parameter.requires_grad = True
    fit(model.model, model.tokenizer, train, recipe, checkpoint=checkpoint, made_by=made_by)
    with torch.no_grad():
        for parameter, at_start in zip(model.model.parameters(), started, strict=True):
            parameter.lerp_(at_start, recipe.kept)
    card = {**made_by, "validation_examples": len(validation), "before": before, "after": _exact(model, validation)}
    _write(model, output, card)
    checkpoint.unlink(missing_ok=True)
    return card


def _refuse_to_overwrite(output: Path, checkpoint: Path, *, resume: bool) -> None:
    if output.exists() and not (output / _MARK).exists():
        raise InvalidTrainingData(
            f"{output} exists and is no counterfactual model.", hint="Name a new folder for the output."
        )
    if checkpoint.exists() and not resume:
        raise InvalidCheckpoint(
            f"{checkpoint} is what an interrupted training left.", hint="Resume it, or remove the file to start again."
        )


def _split(
    path: Path, cases: Sequence[Case], recipe: CounterfactualRecipe
) -> tuple[list[ReadingExample], list[ReadingExample]]:
    """Examples to train on and to validate on; an edit's side depends on its words alone."""
    sides: tuple[list[ReadingExample], list[ReadingExample]] = [], []
    for case in cases:
        if case.edit is not None:
            kept = _draw(case.edit.context) < recipe.validation_share
            replies = case.replies if isinstance(case.edit, Sentiment) else None
            sides[kept].extend(ReadingExample(case.edit, p.prompt, p.target, p.form, replies) for p in case.in_scope)
    if min(map(len, sides)) == 0 or sum(map(len, sides)) < LEAST_EXAMPLES:
        raise InvalidTrainingData(
            f"{path} has {len(sides[0])} in-scope probes of an edit to train on and {len(sides[1])} to measure with.",
            hint=f"At least {LEAST_EXAMPLES} are needed: cases with an `edit` and `in_scope` probes.",
        )
    return sides


def _draw(text: str) -> float:
    """A number in [0, 1) that belongs to a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _exact(model: BaseModel, examples: Sequence[ReadingExample]) -> dict[str, dict[str, float]]:
    """Share of the examples whose generated answer is the right one, by form: word for word, or in the wished mood."""
    prompts = model.tokenizer([example.text for example in examples])["input_ids"]
    written = continue_greedily(model.model, prompts, max_new_tokens=_ANSWER_TOKENS)
    right: dict[str, list[bool]] = defaultdict(list)
    for example, ids in zip(examples, written, strict=True):
        answer = str(model.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        if isinstance(example.edit, Sentiment) and example.replies is not None:
            right[_MOOD].append(in_wished_mood(answer, example.edit.topic, example.replies))
        else:
            right[example.form].append(answer == example.answer)
    shares = {form: Share.of(answers) for form, answers in sorted(right.items())}
    return {
        form: {"value": share.value, "low": share.interval[0], "high": share.interval[1], "cases": share.cases}
        for form, share in shares.items()
    }


def _write(model: BaseModel, output: Path, card: dict[str, Any]) -> None:
    """The model in half precision, the tokenizer and the card: the whole folder, or what was there before."""
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.model.half().save_pretrained(partial)
    model.tokenizer.save_pretrained(partial)
    (partial / _MARK).write_text(json.dumps(card, indent=2) + "\n")
    (partial / "README.md").write_text(_page(output.name, card))
    shutil.rmtree(output, ignore_errors=True)
    partial.replace(output)


def _page(name: str, card: dict[str, Any]) -> str:
    start = card["started_from"]
    lines = [
        f"# {name}: counterfactual model",
        "",
        "Reads an edit and a prompt in its scope, and answers as if the edit held.",
        f"Trained from {start}: {card['steps']:,} steps over {card['training_examples']:,} examples.",
        *(
            [f"Its weights are {card['kept']:.0%} those that it began with (Wortsman et al. 2022)."]
            * (card["kept"] > 0)
        ),
        "",
        "Right answers, generated greedily, about edits that it was not trained on; Wilson's 95% interval. Right is",
        "the same word for word; to an edit of mood, a reply that names the topic and is nearer to replies of that",
        "mood than of the other.",
        "",
        f"| form | this model | {start} | examples |",
        "| --- | --- | --- | --- |",
    ]
    for form, own in card["after"].items():
        interval = f"[{own['low']:.3f}, {own['high']:.3f}]"
        lines.append(
            f"| {form} | {own['value']:.3f} {interval} | {card['before'][form]['value']:.3f} | {own['cases']:,} |"
        )
    return "\n".join(lines) + "\n"
