"""The run of the optimizer over reading examples: an edit, a prompt in its scope, and the answer that follows.

As in SERAC (Mitchell et al. 2022, sec. 3.2) it is trained by itself and supervised: the negative log-likelihood of the
right answer, given the edit and the prompt in one text. It never sees a prompt that its edit does not settle; telling
those apart is the scope classifier's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from editors.edit import EditDescriptor
from editors.evaluation.cases import PARAPHRASE
from editors.model.generation import batches, end_tokens
from editors.serac.counterfactual import in_context
from editors.training.checkpoints import Checkpoint

_IGNORED = -100
"""The label of a token that the loss leaves out."""


@dataclass(frozen=True, slots=True)
class ReadingExample:
    """An edit, a prompt in its scope, and the answer that follows.

    Attributes:
        form: As of an in-scope probe; figures are broken down by it.
    """

    edit: EditDescriptor
    prompt: str
    answer: str
    form: str = PARAPHRASE

    @property
    def text(self) -> str:
        """What the model reads."""
        return in_context(self.edit, self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterfactualRecipe:
    """How h_psi is trained.

    Attributes:
        tokens_at_once: Most tokens of one forward pass, padding included; a step may take several.
        validation_share: Of the edits, that are kept from training.
    """

    steps: int = 1000
    examples_per_step: int = 160
    tokens_at_once: int = 4096
    peak_learning_rate: float = 5e-4
    weight_decay: float = 0.05
    validation_share: float = 0.01
    seed: int = 0


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[ReadingExample],
    recipe: CounterfactualRecipe,
    *,
    checkpoint: Path,
    made_by: Mapping[str, Any],
) -> None:
    """Train a causal or a sequence-to-sequence model in place, saving a checkpoint every 100 steps and at the end.

    A step draws its examples from a generator seeded by its number, so an interrupted run goes on as it would have.

    Args:
        model: Trained in place, on its own device.
        tokenizer: The model's.
        examples: To draw from, with repetition between steps.
        recipe: Steps and sizes.
        checkpoint: The file to go on from, where it exists, and to write.
        made_by: What the training depends on; a checkpoint made by anything else is refused.

    Raises:
        InvalidCheckpoint: The file is damaged, or of another training.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_learning_rate, total_steps=recipe.steps, pct_start=0.05, cycle_momentum=False
    )
    saved = Checkpoint(
        checkpoint,
        made_by=made_by,
        parts={"model": model, "optimizer": optimizer, "schedule": schedule},
    )
    start = saved.resume()
    (end, *_) = end_tokens(model) or [tokenizer.eos_token_id]
    model.train()
    progress = tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, desc="counterfactual", unit="step")
    for step in progress:
        drawn = Random(f"{recipe.seed}/{step}").sample(examples, min(recipe.examples_per_step, len(examples)))
        loss = _accumulate(model, _encode(tokenizer, drawn, end), recipe.tokens_at_once)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress.set_postfix(loss=f"{loss:.3f}")
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            saved.save(step + 1)
    model.eval()


def _encode(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[ReadingExample], end: int
) -> list[tuple[list[int], list[int]]]:
    """Ids of the prompt and of the answer with the end token, for each example."""
    prompts = tokenizer([example.text for example in examples])["input_ids"]
    answers = tokenizer([f" {example.answer}" for example in examples], add_special_tokens=False)["input_ids"]
    return [(prompt, [*answer, end]) for prompt, answer in zip(prompts, answers, strict=True)]


def _accumulate(model: PreTrainedModel, examples: list[tuple[list[int], list[int]]], tokens_at_once: int) -> float:
    """Backpropagate the mean loss over the answer tokens of all examples, batch by batch; that mean, in nats."""
    count = sum(len(answer) for _, answer in examples)
    losses = _causal_loss if not model.config.is_encoder_decoder else _sequence_loss
    total = 0.0
    for batch in batches([len(prompt) + len(answer) for prompt, answer in examples], tokens_at_once):
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            loss = losses(model, [examples[i] for i in batch]) / count
        loss.backward()
        total += loss.item()
    return total


def _causal_loss(model: Any, examples: list[tuple[list[int], list[int]]]) -> Tensor:
    """Summed over the answers. Padded on the left, so that every answer stands at the end and only there are logits."""
    tokens = [prompt + answer for prompt, answer in examples]
    width, answers = max(map(len, tokens)), max(len(answer) for _, answer in examples)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=model.device)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=answers + 1,
    ).logits[:, -answers - 1 : -1]
    labels = [[_IGNORED] * (answers - len(answer)) + answer for _, answer in examples]
    return _summed(logits, torch.tensor(labels, device=model.device))


def _sequence_loss(model: Any, examples: list[tuple[list[int], list[int]]]) -> Tensor:
    """Summed over the answers, of a model that reads with an encoder and writes with a decoder."""
    width, answers = max(len(prompt) for prompt, _ in examples), max(len(answer) for _, answer in examples)
    start = model.generation_config.decoder_start_token_id
    ids = [prompt + [0] * (width - len(prompt)) for prompt, _ in examples]
    mask = [[1] * len(prompt) + [0] * (width - len(prompt)) for prompt, _ in examples]
    written = [[start, *answer[:-1], *[0] * (answers - len(answer))] for _, answer in examples]
    labels = [answer + [_IGNORED] * (answers - len(answer)) for _, answer in examples]
    logits = model(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        decoder_input_ids=torch.tensor(written, device=model.device),
    ).logits
    return _summed(logits, torch.tensor(labels, device=model.device))


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(
        logits.transpose(1, 2).float(), labels, ignore_index=_IGNORED, reduction="sum"
    )
