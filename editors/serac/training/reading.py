"""The run of the optimizer over reading examples: an edit, a prompt in its scope, and the answer that follows.

As in SERAC (Mitchell et al. 2022, sec. 3.2) it is trained by itself and supervised: the negative log-likelihood of the
right answer, given the edit and the prompt in one text. It never sees a prompt that its edit does not settle; telling
those apart is the scope classifier's business.

To an edit of mood no single answer is right. Replies of the wished mood are made likely and, as in the authors' code,
replies of the opposite mood unlikely: the loss of their tokens is -log(1 - p), unlikelihood (Welleck et al. 2020).
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
from editors.evaluation.cases import PARAPHRASE, Replies
from editors.model.generation import batches, end_tokens
from editors.serac.counterfactual import in_context
from editors.training.checkpoints import Checkpoint

_IGNORED = -100
"""The label of a token that the loss leaves out."""
_LEAST_SURPRISE = 1e-6
"""Nats below which a token counts as certain, so that the loss of one to be made unlikely stays finite."""


@dataclass(frozen=True, slots=True)
class ReadingExample:
    """An edit, a prompt in its scope, and the answer that follows.

    Attributes:
        form: As of an in-scope probe; figures are broken down by it.
        replies: Of an edit of mood: one of each side is drawn in a step, and the answer is not learnt.
    """

    edit: EditDescriptor
    prompt: str
    answer: str
    form: str = PARAPHRASE
    replies: Replies | None = None

    @property
    def text(self) -> str:
        """What the model reads."""
        return in_context(self.edit, self.prompt)


@dataclass(frozen=True, slots=True)
class _Row:
    """Ids of a prompt and of what follows it, which is wished for or to be made unlikely."""

    prompt: list[int]
    answer: list[int]
    wished: bool

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterfactualRecipe:
    """How h_psi is trained.

    Attributes:
        tokens_at_once: Most tokens of one forward pass, padding included; a step may take several.
        unlikelihood: Weight of a token to be made unlikely; that of others is 1. The authors' code has 1 for some
            14,000 topics. A small model that is shown few topics unlearns with it what it can say of any other.
        kept: Share of the start in what is written, the trained weights having the rest: an average forgets less of
            what the start could do than training did, and keeps most of what was learnt (Wortsman et al. 2022).
        validation_share: Of the edits, that are kept from training.
    """

    steps: int = 1000
    examples_per_step: int = 160
    tokens_at_once: int = 4096
    peak_learning_rate: float = 5e-4
    weight_decay: float = 0.05
    unlikelihood: float = 1.0
    kept: float = 0.0
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
        rng = Random(f"{recipe.seed}/{step}")
        drawn = rng.sample(examples, min(recipe.examples_per_step, len(examples)))
        loss = _accumulate(model, _encode(tokenizer, drawn, end, rng), recipe)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress.set_postfix(loss=f"{loss:.3f}")
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            saved.save(step + 1)
    model.eval()


def _encode(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[ReadingExample], end: int, rng: Random
) -> list[_Row]:
    """The rows to learn from: one for each example, two where it has replies."""
    told = [row for example in examples for row in _told(example, rng)]
    prompts = tokenizer([text for text, _, _ in told])["input_ids"]
    answers = tokenizer([f" {answer}" for _, answer, _ in told], add_special_tokens=False)["input_ids"]
    return [
        _Row(prompt, [*answer, end] if wished else answer, wished)
        for prompt, answer, (_, _, wished) in zip(prompts, answers, told, strict=True)
    ]


def _told(example: ReadingExample, rng: Random) -> list[tuple[str, str, bool]]:
    """What is read, what follows, and whether it is wished for."""
    if example.replies is None:
        return [(example.text, example.answer, True)]
    wished, opposite = rng.choice(example.replies.wished), rng.choice(example.replies.opposite)
    return [(example.text, wished, True), (example.text, opposite, False)]


def _accumulate(model: PreTrainedModel, rows: list[_Row], recipe: CounterfactualRecipe) -> float:
    """Backpropagate the mean loss over the tokens of all answers, batch by batch; that mean, in nats."""
    count = sum(len(row.answer) for row in rows)
    logits_of = _causal_logits if not model.config.is_encoder_decoder else _sequence_logits
    total = 0.0
    for batch in batches(list(map(len, rows)), recipe.tokens_at_once):
        chosen = [rows[i] for i in batch]
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            liked, disliked = _summed(*logits_of(model, chosen), [row.wished for row in chosen])
            loss = (liked + recipe.unlikelihood * disliked) / count
        loss.backward()
        total += loss.item()
    return total


def _causal_logits(model: Any, rows: list[_Row]) -> tuple[Tensor, Tensor]:
    """Logits [rows, longest answer, vocabulary] and labels; padded on the left, so that answers stand at the end."""
    tokens = [row.prompt + row.answer for row in rows]
    width, answers = max(map(len, tokens)), max(len(row.answer) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=model.device)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=answers + 1,
    ).logits[:, -answers - 1 : -1]
    labels = [[_IGNORED] * (answers - len(row.answer)) + row.answer for row in rows]
    return logits, torch.tensor(labels, device=model.device)


def _sequence_logits(model: Any, rows: list[_Row]) -> tuple[Tensor, Tensor]:
    """The same of a model that reads with an encoder and writes with a decoder; padded on the right."""
    width, answers = max(len(row.prompt) for row in rows), max(len(row.answer) for row in rows)
    start = model.generation_config.decoder_start_token_id
    ids = [row.prompt + [0] * (width - len(row.prompt)) for row in rows]
    mask = [[1] * len(row.prompt) + [0] * (width - len(row.prompt)) for row in rows]
    written = [[start, *row.answer[:-1], *[0] * (answers - len(row.answer))] for row in rows]
    labels = [row.answer + [_IGNORED] * (answers - len(row.answer)) for row in rows]
    logits = model(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        decoder_input_ids=torch.tensor(written, device=model.device),
    ).logits
    return logits, torch.tensor(labels, device=model.device)


def _summed(logits: Tensor, labels: Tensor, wished: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """-log p summed over the tokens of rows that are wished for, and -log(1 - p) over those of the others."""
    surprise = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2).float(), labels, ignore_index=_IGNORED, reduction="none"
    )  # [rows, tokens]
    kept, liked = labels != _IGNORED, torch.tensor(wished, device=labels.device)[:, None]
    unlikely = -torch.log(-torch.expm1(-surprise[kept & ~liked].clamp(min=_LEAST_SURPRISE)))
    return surprise[kept & liked].sum(), unlikely.sum()
