"""The run of the optimizer over the scope classifier's pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from editors.serac.adapter import Adapter, begin_with, fingerprint, make_trainable, trained_tensors
from editors.serac.cross_encoder import PairModel, PairTokenizer, batches, pair_logits
from editors.serac.training.metrics import average_precision
from editors.serac.training.pairs import LabelledPair, labels_of
from editors.training.checkpoints import Checkpoint

_CHECKPOINT_STEPS = 100
_WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""
_LOOK_PAIRS = 2000
"""Validation pairs looked at for early stopping; the final figures are from all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a training depends on beside its pairs.

    Attributes:
        steps: Of the optimizer.
        batch_size: Pairs in each, half of them in scope.
        rank: Of the change to each linear layer.
        learning_rate: At its peak; it rises over the first 5% of the steps and falls as a cosine.
        weight_decay: AdamW's.
        validation_share: Of the subjects, that are kept from training.
        false_positives: Share of the out-of-scope validation pairs that may reach the threshold.
        patience: Looks at the validation pairs without a better average precision after which training ends; without
            it all steps are made and the last weights are kept.
        look_steps: Steps between two looks.
        tokens_per_pass: Tokens, with padding, that go through the model at once; it changes speed alone.
        seed: Of the order of the pairs and of what is drawn at the start.
    """

    steps: int = 3000
    batch_size: int = 128
    rank: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    validation_share: float = 0.05
    false_positives: float = 0.01
    patience: int | None = None
    look_steps: int = 250
    tokens_per_pass: int = 1024
    seed: int = 0


class Training:
    """A model in training. A pair beyond the window is learnt from each of its windows.

    Args:
        recipe: How to train.
        train: Pairs to learn from, of both classes.
        validation: Pairs to look at for early stopping.
        folder: The encoder's.
        device: Where it runs.
        start: A trained classifier to begin with; None begins with the encoder as it is.

    Raises:
        EncoderMismatch: The classifier to begin with belongs to another encoder.
        InvalidClassifierFile: It does not fit: its rank is another, or a tensor is missing or unknown.

    Attributes:
        best: The weights to keep.
        parts: What a checkpoint holds.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Sequence[LabelledPair],
        validation: Sequence[LabelledPair],
        folder: Path,
        device: torch.device,
        start: Adapter | None = None,
    ) -> None:
        self._recipe, self._tokenizer, self._device = recipe, PairTokenizer(folder), device
        self._classes = [[pair for pair in train if pair.label == label] for label in (1, 0)]
        self._looked_at = [validation[i] for i in _shuffled(len(validation), recipe.seed)[:_LOOK_PAIRS]]
        self._encoder = fingerprint(folder)
        self._model = PairModel(folder)
        make_trainable(self._model, rank=recipe.rank, generator=torch.Generator().manual_seed(recipe.seed))
        self._model.to(device)
        tensors = trained_tensors(self._model)
        if start is not None:
            start.check_encoder(self._encoder, self._model.width)
            begin_with(start, tensors)
        self._optimizer = torch.optim.AdamW(tensors.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self._schedule = get_cosine_schedule_with_warmup(self._optimizer, round(_WARM_UP * recipe.steps), recipe.steps)
        self.best = Best()
        self.parts: Mapping[str, Any] = {
            "adapter": _Tensors(tensors),
            "optimizer": self._optimizer,
            "schedule": self._schedule,
            "best": self.best,
        }

    def run(self, checkpoint: Checkpoint) -> None:
        """Make the steps that are still to be made."""
        recipe = self._recipe
        start = checkpoint.resume()
        with tqdm(total=recipe.steps, initial=start, desc="scope", unit="step") as progress:
            for step in range(start + 1, recipe.steps + 1):
                if self._has_lost_patience():
                    break
                progress.set_postfix(loss=f"{self._step(step - 1):.3f}", best=f"{self.best.precision:.4f}")
                progress.update()
                last = step == recipe.steps
                if recipe.patience is None and last:
                    self.best.keep(0.0, step, trained_tensors(self._model))
                elif recipe.patience is not None and (last or step % recipe.look_steps == 0):
                    self._look(step)
                if last or step % _CHECKPOINT_STEPS == 0:
                    checkpoint.save(step)

    def adapter(self, card: Mapping[str, Any]) -> Adapter:
        """What was trained, not yet calibrated: beta is the sigmoid of the logit, and every pair is asked about.

        Args:
            card: What it was trained with; the number of pairs and the step that was kept are added.
        """
        return Adapter(
            tensors=self.best.tensors,
            encoder=self._encoder,
            width=self._model.width,
            scale=1.0,
            shift=0.0,
            threshold=0.5,
            floor=-1.0,
            card={**card, "training_pairs": sum(map(len, self._classes)), "kept_step": self.best.step},
        )

    def _step(self, step: int) -> float:
        """One step of the optimizer on half in-scope, half out-of-scope pairs; returns their mean loss."""
        examples = self._examples(step)
        rows, owners = self._tokenizer.rows([pair.texts for pair in examples])
        total = 0.0
        for batch in batches(rows, self._recipe.tokens_per_pass):
            labels = torch.tensor([float(examples[owners[i]].label) for i in batch], device=self._device)
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                logits = self._model(*self._tokenizer.tensors([rows[i] for i in batch], self._device))
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(examples)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_([p for p in self._model.parameters() if p.requires_grad], 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        return total

    def _examples(self, step: int) -> list[LabelledPair]:
        """The pairs of a step: both classes are dealt out from decks that are shuffled again when they run out."""
        half = self._recipe.batch_size // 2
        dealt = []
        for side, pairs in enumerate(self._classes):
            for place in range(step * half, (step + 1) * half):
                deck, card = divmod(place, len(pairs))
                dealt.append(pairs[_shuffled(len(pairs), self._recipe.seed, side, deck)[card]])
        return dealt

    def _look(self, step: int) -> None:
        """Keep the present weights if they rank the validation pairs better than any before."""
        logits = pair_logits(self._model, self._tokenizer, [pair.texts for pair in self._looked_at])
        precision = average_precision(logits, labels_of(self._looked_at))
        if precision > self.best.precision:
            self.best.keep(precision, step, trained_tensors(self._model))
        else:
            self.best.looks_since += 1

    def _has_lost_patience(self) -> bool:
        return self._recipe.patience is not None and self.best.looks_since >= self._recipe.patience


class _Tensors:
    """The trained tensors as a part of a checkpoint; the encoder's own are not worth keeping twice."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors."""
        return {name: tensor.detach() for name, tensor in self._tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Bring the tensors to what they were."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state[name])


class Best:
    """The weights to keep, with the step that made them and their average precision where it was looked at."""

    def __init__(self) -> None:
        self.precision = 0.0
        self.step = 0
        self.looks_since = 0
        self.tensors: dict[str, Tensor] = {}

    def keep(self, precision: float, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a copy of these weights, rounded as they are shipped, so that figures are those of the file."""
        self.precision, self.step, self.looks_since = precision, step, 0
        self.tensors = {name: tensor.detach().to("cpu", torch.float16, copy=True) for name, tensor in tensors.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything it holds."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what was held."""
        vars(self).update(state)


@lru_cache(maxsize=4)
def _shuffled(n: int, *seed: int) -> NDArray[np.intp]:
    """The numbers below n in an order that belongs to the seed."""
    return np.random.default_rng(seed).permutation(n)
