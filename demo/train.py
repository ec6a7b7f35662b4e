"""Train atlas-2018 from scratch: `python -m demo.train`.

A 6-layer, 256-wide Llama; documents packed into rows of 96 tokens, each attending to itself alone; AdamW with a
one-cycle learning rate. The loss counts answers in full and prompts, at first, a little.
Five stages: the first learns the facts and reads edits whose values come from lists; the second pieces most values
together at random, without which the model copies only the names it knows; the third reads more than it recalls; the
fourth copies every token there is, and learns answers alone: a model that has learnt prompts goes on writing one
("is a book written by" -> "the writer ...") where an answer is due; the last meets names with dots, numerals and rare
letters.
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
from demo.tokenizer import texts_of_tokens, train_tokenizer
from editors.training.checkpoints import Checkpoint


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the optimizer, from the weights of the stage before.

    Attributes:
        closed_book: Share of the examples that ask for a fact.
        strangeness: Share of names and values in reading tasks that are pieced together at random.
        scrambled: Whether half of these are made of the tokenizer's tokens, each as likely as any other.
        marks: Whether half of them carry initials, dots, numerals or rare letters.
        prompt_weight: Of a prompt's tokens in the loss, where an answer's count 1.
    """

    name: str
    steps: int
    peak_learning_rate: float
    closed_book: float
    strangeness: float
    scrambled: bool = False
    marks: bool = False
    prompt_weight: float = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the model is trained; what a checkpoint is only valid for."""

    stages: tuple[Stage, ...] = (
        Stage("facts", 4000, 2e-3, closed_book=0.58, strangeness=0.0),
        Stage("copying", 1300, 1.2e-3, closed_book=0.58, strangeness=0.6),
        Stage("reading", 750, 1e-3, closed_book=0.3, strangeness=0.6),
        Stage("answers", 3000, 1e-3, closed_book=0.4, strangeness=0.7, scrambled=True, prompt_weight=0.0),
        Stage("marks", 800, 6e-4, closed_book=0.4, strangeness=0.7, scrambled=True, marks=True, prompt_weight=0.0),
    )
    examples_per_step: int = 160
    row_length: int = 96
    context_length: int = 256
    weight_decay: float = 0.05
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
        tokens = texts_of_tokens(tokenizer) if stage.scrambled else ()
        strange = replace(corpus, strangeness=stage.strangeness, tokens=tokens, marks=stage.marks)
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
        InvalidCheckpoint: The folder holds a damaged checkpoint, or one of another recipe.
    """
    device: torch.device = model.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, stage.peak_learning_rate, total_steps=stage.steps, pct_start=0.05, cycle_momentum=False
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    checkpoint = Checkpoint(run / f"{stage.name}.pt", made_by=asdict(recipe), parts=parts)
    start = checkpoint.resume()
    model.train()
    progress = tqdm(range(start, stage.steps), initial=start, total=stage.steps, desc=stage.name, unit="step")
    for step in progress:
        examples = _examples(corpus, recipe, stage, first_step + step)
        rows = pack(examples, tokenizer, recipe.row_length, stage.prompt_weight)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss: Any = _loss(model, rows, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % 100 == 0 or step + 1 == stage.steps:
            checkpoint.save(step + 1)


def _examples(corpus: Corpus, recipe: Recipe, stage: Stage, step: int) -> list[Example]:
    return batch(corpus, step, recipe.examples_per_step, closed_book=stage.closed_book, seed=recipe.seed)


def pack(examples: list[Example], tokenizer: PreTrainedTokenizerFast, row_length: int, prompt_weight: float) -> Rows:
    """Lay documents side by side in rows, longest first, each in the fullest row that still takes it."""
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    answers = tokenizer([f" {example.answer}" for example in examples], add_special_tokens=False)["input_ids"]
    documents = sorted(zip(prompts, answers, strict=True), key=lambda pair: -len(pair[0]) - len(pair[1]))
    rows: list[list[tuple[list[int], int]]] = []
    space: list[int] = []
    for prompt, answer in documents:
        ids = [*prompt, *answer, tokenizer.eos_token_id]
        if len(ids) > row_length:
            continue
        fitting = [i for i, room in enumerate(space) if room >= len(ids)]
        row = min(fitting, key=space.__getitem__) if fitting else len(rows)
        if not fitting:
            rows.append([])
            space.append(row_length)
        rows[row].append((ids, len(prompt)))
        space[row] -= len(ids)
    return _tensors(rows, tokenizer.pad_token_id, row_length, prompt_weight)


def _tensors(rows: list[list[tuple[list[int], int]]], pad: int, row_length: int, prompt_weight: float) -> Rows:
    shape = (len(rows), row_length)
    tokens, positions = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    owner, weights = torch.full(shape, -1), torch.zeros(shape)
    for r, documents in enumerate(rows):
        start = 0
        for d, (ids, prompt_length) in enumerate(documents):
            end = start + len(ids)
            tokens[r, start:end] = torch.tensor(ids)
            positions[r, start:end] = torch.arange(len(ids))
            owner[r, start:end] = d
            weights[r, start + 1 : start + prompt_length] = prompt_weight
            weights[r, start + prompt_length : end] = 1.0
            start = end
    causal = torch.ones(row_length, row_length, dtype=torch.bool).tril()
    mask = (owner[:, :, None] == owner[:, None, :]) & causal
    return Rows(tokens, positions, mask[:, None], weights)


def _loss(model: Any, rows: Rows, device: torch.device) -> Tensor:
    """Weighted mean cross-entropy of each token given those before it, over the tokens that have a weight."""
    hidden = model.model(
        input_ids=rows.tokens.to(device),
        position_ids=rows.positions.to(device),
        attention_mask=rows.mask.to(device),
        use_cache=False,
    ).last_hidden_state
    counted = rows.weights[:, 1:] > 0
    targets, weights = rows.tokens[:, 1:][counted].to(device), rows.weights[:, 1:][counted].to(device)
    logits = model.lm_head(hidden[:, :-1][counted.to(device)])
    losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
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


if __name__ == "__main__":
    main()
