"""Train atlas-2018 from scratch: `python -m demo.train`.

A 6-layer, 256-wide Llama; documents packed into rows of 96 tokens, each attending to itself alone; AdamW with a
one-cycle learning rate. The loss counts answers in full and prompts a little, since answers are what is asked for.
Three stages: the first learns the facts and reads edits whose values come from lists; the second pieces most values
together at random, without which the model copies only the names it knows; the third reads more than it recalls.
Interrupted, it goes on from the last checkpoint of its run folder; the same seed draws the same examples.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo import BUNDLE
from demo.corpus import Corpus, Example, batch
from demo.facts import load_world
from demo.opinions import load_opinions
from demo.reading import load_inventor
from demo.tokenizer import train_tokenizer

Parts = dict[str, Any]
"""What a checkpoint holds: model, optimizer and schedule, by name."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the optimizer, from the weights of the stage before.

    Attributes:
        closed_book: Share of the examples that ask for a fact.
        strangeness: Share of names and values in reading tasks that are pieced together at random.
    """

    name: str
    steps: int
    peak_learning_rate: float
    closed_book: float
    strangeness: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the model is trained; what a checkpoint is only valid for."""

    stages: tuple[Stage, ...] = (
        Stage("facts", 4000, 2e-3, closed_book=0.58, strangeness=0.0),
        Stage("copying", 1300, 1.2e-3, closed_book=0.58, strangeness=0.6),
        Stage("reading", 750, 1e-3, closed_book=0.3, strangeness=0.6),
    )
    examples_per_step: int = 160
    row_length: int = 96
    context_length: int = 256
    weight_decay: float = 0.05
    prompt_weight: float = 0.1
    hidden_size: int = 256
    intermediate_size: int = 1024
    layers: int = 6
    heads: int = 4
    seed: int = 2018


@dataclass(frozen=True, slots=True)
class Rows:
    """A packed batch. Every tensor is [rows, row_length]; `mask` is [rows, 1, row_length, row_length]."""

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    weights: Tensor
    """Of each token as a target of the loss."""


def main() -> None:
    """Train to the end, or go on from the last checkpoint, and write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/atlas-2018"), help="folder of checkpoints")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=BUNDLE)
    arguments = parser.parse_args()
    recipe = Recipe()
    arguments.run.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(load_world(), load_opinions(), load_inventor(held_out=False))
    tokenizer = train_tokenizer(corpus, context_length=recipe.context_length, seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    model: Any = LlamaForCausalLM(_config(recipe, tokenizer))
    model.to(torch.device(arguments.device))
    first = 0
    for stage in recipe.stages:
        strange = replace(corpus, strangeness=stage.strangeness)
        train(model, strange, tokenizer, recipe, stage, first_step=first, run=arguments.run)
        first += stage.steps
    model.to(torch.float16).save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    (arguments.output / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")


def train(
    model: Any,
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    stage: Stage,
    *,
    first_step: int,
    run: Path,
) -> None:
    """Train one stage, saving a checkpoint to `run` every 100 steps and at its end.

    Args:
        model: Trained in place.
        corpus: Where examples are drawn from.
        tokenizer: The model's.
        recipe: What all stages share.
        stage: This one.
        first_step: Steps of the stages before, so that no step draws the same examples.
        run: The folder of checkpoints, one for each stage.

    Raises:
        ValueError: The folder holds a checkpoint of another recipe.
    """
    device: torch.device = model.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, stage.peak_learning_rate, total_steps=stage.steps, pct_start=0.05, cycle_momentum=False
    )
    checkpoint = run / f"{stage.name}.pt"
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start = _resume(checkpoint, recipe, parts)
    model.train()
    progress = tqdm(range(start, stage.steps), initial=start, total=stage.steps, desc=stage.name, unit="step")
    for step in progress:
        examples = _examples(corpus, recipe, stage, first_step + step)
        rows = pack(examples, tokenizer, recipe)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss: Any = _loss(model, rows, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % 100 == 0 or step + 1 == stage.steps:
            _save(checkpoint, step + 1, recipe, parts)


def _examples(corpus: Corpus, recipe: Recipe, stage: Stage, step: int) -> list[Example]:
    return batch(corpus, step, recipe.examples_per_step, closed_book=stage.closed_book, seed=recipe.seed)


def pack(examples: list[Example], tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Rows:
    """Lay documents side by side in rows, longest first, each in the fullest row that still takes it."""
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    answers = tokenizer([f" {example.answer}" for example in examples], add_special_tokens=False)["input_ids"]
    documents = sorted(zip(prompts, answers, strict=True), key=lambda pair: -len(pair[0]) - len(pair[1]))
    rows: list[list[tuple[list[int], int]]] = []
    space: list[int] = []
    for prompt, answer in documents:
        ids = [*prompt, *answer, tokenizer.eos_token_id]
        if len(ids) > recipe.row_length:
            continue
        fitting = [i for i, room in enumerate(space) if room >= len(ids)]
        row = min(fitting, key=space.__getitem__) if fitting else len(rows)
        if not fitting:
            rows.append([])
            space.append(recipe.row_length)
        rows[row].append((ids, len(prompt)))
        space[row] -= len(ids)
    return _tensors(rows, tokenizer.pad_token_id, recipe)


def _tensors(rows: list[list[tuple[list[int], int]]], pad: int, recipe: Recipe) -> Rows:
    shape = (len(rows), recipe.row_length)
    tokens, positions = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    owner, weights = torch.full(shape, -1), torch.zeros(shape)
    for r, documents in enumerate(rows):
        start = 0
        for d, (ids, prompt_length) in enumerate(documents):
            end = start + len(ids)
            tokens[r, start:end] = torch.tensor(ids)
            positions[r, start:end] = torch.arange(len(ids))
            owner[r, start:end] = d
            weights[r, start + 1 : start + prompt_length] = recipe.prompt_weight
            weights[r, start + prompt_length : end] = 1.0
            start = end
    causal = torch.ones(recipe.row_length, recipe.row_length, dtype=torch.bool).tril()
    mask = (owner[:, :, None] == owner[:, None, :]) & causal
    return Rows(tokens, positions, mask[:, None], weights)


def _loss(model: Any, rows: Rows, device: torch.device) -> Tensor:
    """Weighted mean cross-entropy of each token given those before it."""
    logits = model(
        input_ids=rows.tokens.to(device),
        position_ids=rows.positions.to(device),
        attention_mask=rows.mask.to(device),
        use_cache=False,
    ).logits
    targets, weights = rows.tokens[:, 1:].to(device), rows.weights[:, 1:].to(device)
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2).float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def _config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context_length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _save(path: Path, step: int, recipe: Recipe, parts: Parts) -> None:
    state = {"step": step, "recipe": asdict(recipe), **{name: part.state_dict() for name, part in parts.items()}}
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(path: Path, recipe: Recipe, parts: Parts) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise ValueError(f"{path} was made by another recipe; remove it or name another --run folder")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


if __name__ == "__main__":
    main()
