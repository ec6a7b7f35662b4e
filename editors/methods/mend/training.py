"""Train MEND's editor for one base (Mitchell et al. 2022a, sec. 3.3).

The gradient flows through the edited weights into the networks; that of the edit itself is taken as given, so nothing
is differentiated twice. Unlike in the paper, groups of every size up to the largest are trained on, so that one editor
serves single edits and batches; and where the base ends its answers, the end is learnt with them, so that an edited
answer ends too when it is freely generated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from editors.errors import InvalidCheckpoint, InvalidTrainingData, TrainingDiverged
from editors.evaluation.cases import Case
from editors.evaluation.datasets import read_cases
from editors.evaluation.intervals import Share
from editors.methods.mend.card import write_card
from editors.methods.mend.config import MendRecipe
from editors.methods.mend.decompose import Factors, edit_gradients
from editors.methods.mend.files import TrainedEditor, save, stored
from editors.methods.mend.groups import Group, drawn_groups, split, whole_groups
from editors.methods.mend.network import Networks
from editors.methods.mend.objective import Probes, end_of_answers, in_force, owners_of
from editors.model.loading import BaseModel, load_base
from editors.model.views import view
from editors.surgery.room import enough_memory
from editors.training.checkpoints import Checkpoint

LEAST_CASES = 20
"""Fewer than these teach an editor nothing that it could be judged by."""
_SIZES = (1, 5, 25)
"""Simultaneous edits that the card tells of, as the paper's table 5 does."""
_LOOKED_AT = 75
"""Validation cases at a look; the card is of as many as `_MEASURED`."""
_MEASURED = 200
_EDITS_TRIED = 25
"""Measured in one batch."""
_ANSWERS = 64
"""Answers of the base from which it is told whether they end."""
_CHECKPOINT_STEPS = 100
_WARM_UP = 0.05
_LARGEST_GRADIENT = 0.3
"""In norm; what few groups of many edits bring early on would otherwise throw the rest back."""

T = TypeVar("T")


def train_mend(
    cases: Path,
    base: str | Path,
    output: Path,
    recipe: MendRecipe,
    *,
    format_name: str = "jsonl",
    resume: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Train on a data set of edits by question and answer, and write the editor and its card.

    The output stays as it was until training has ended. Beside it lies a checkpoint while training lasts; the same
    cases, base, recipe and device give the same editor whether or not the training was interrupted.

    Args:
        cases: A data set; see `editors.evaluation.datasets`. Edits of other kinds are passed over.
        base: The model that it is to edit, a folder or a Hugging Face id.
        output: The editor, a safetensors file; its card lies beside it, as .md and .json.
        recipe: How to train.
        format_name: Of the data set.
        resume: Go on from the checkpoint if there is one; without it, one that is there is an error.
        device: `cpu`, `cuda`, ...; `auto` takes a GPU when there is one.

    Returns:
        The card: what it was trained with, and ES and DD on validation cases by number of simultaneous edits.

    Raises:
        InvalidDataset: The data set cannot be used.
        InvalidTrainingData: It has too few edits, or nothing that should stay.
        InvalidCheckpoint: The checkpoint is damaged, of another training, or there and not to be resumed.
        ModelNotFound, DeviceUnavailable, UnknownArchitecture: There is no base to edit, or nowhere to run it.
        EmptyTarget, ContextExceeded: A case does not suit the base.
        TrainingDiverged: The loss is not finite.
        EditFailed: Memory ran out; the checkpoint stays.
        ValueError: The base has fewer blocks than the recipe edits.
    """
    checkpoint = output.with_suffix(".checkpoint")
    if checkpoint.exists() and not resume:
        raise InvalidCheckpoint(
            f"{checkpoint} is what an interrupted training left.", hint="Resume it, or remove the file to start again."
        )
    train, validation = _sides(cases, read_cases(cases, format_name), recipe)
    model = load_base(base, device=device)
    made_by = {
        **asdict(recipe),
        "base": model.fingerprint,
        "cases": hashlib.sha256(cases.read_bytes()).hexdigest(),
        "training_cases": len(train),
    }
    with enough_memory(f"training an editor of {model.name}", hint="Train on fewer edits a step, or fewer blocks."):
        training = Training(model, train, validation, recipe)
        training.run(Checkpoint(checkpoint, made_by, training.parts))
        figures = training.measured()
    made_by["network"] = asdict(training.network)
    card = {**made_by, "trained_for": model.name, "kept_step": training.best.step, "validation": figures}
    save(training.trained(score=_score(figures)), output)
    write_card(card, output)
    checkpoint.unlink(missing_ok=True)
    return card


class Training:
    """An editor in training.

    Args:
        base: What it edits; only read, through a view.
        train: Cases to learn from.
        validation: Cases to look at.
        recipe: How to train.

    Attributes:
        best: The weights to keep.
        parts: What a checkpoint holds.
    """

    def __init__(self, base: BaseModel, train: Sequence[Case], validation: Sequence[Case], recipe: MendRecipe) -> None:
        self._base, self._train, self._validation, self._recipe = base, train, validation, recipe
        self._model = view(base.model).requires_grad_(requires_grad=False)
        answers = [(probe.prompt, probe.target) for case in train for probe in case.out_of_scope if probe.target]
        self.network = replace(recipe.network, end=end_of_answers(base, self._model, answers[:_ANSWERS]))
        self._networks = Networks(self.network.sites(base), self.network, seed=recipe.seed).to(base.device)
        steps, rates = [self._networks.log_alpha], (recipe.learning_rate, recipe.step_size_learning_rate)
        others = [parameter for parameter in self._networks.parameters() if parameter is not self._networks.log_alpha]
        self._optimizer = torch.optim.Adam(
            [{"params": params, "lr": rate} for params, rate in zip((others, steps), rates, strict=True)]
        )
        self._schedule = get_cosine_schedule_with_warmup(self._optimizer, round(_WARM_UP * recipe.steps), recipe.steps)
        self.best = Best()
        self.parts: Mapping[str, Any] = {
            "networks": self._networks,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
            "best": self.best,
        }

    def run(self, checkpoint: Checkpoint) -> None:
        """Make the steps that are still to be made.

        Raises:
            InvalidCheckpoint: The checkpoint is damaged, or of another training.
            TrainingDiverged: The loss is not finite.
        """
        recipe, start = self._recipe, checkpoint.resume()
        with tqdm(total=recipe.steps, initial=start, desc="mend", unit="step") as progress:
            for step in range(start + 1, recipe.steps + 1):
                if self.best.looks_since >= recipe.patience:
                    break
                edit, kept = self._step(step - 1)
                progress.set_postfix(edit=f"{edit:.3f}", kept=f"{kept:.4f}", best=f"{self.best.score:.3f}")
                progress.update()
                last = step == recipe.steps
                if last or step % recipe.look_steps == 0:
                    self._look(step)
                if last or step % _CHECKPOINT_STEPS == 0:
                    checkpoint.save(step)

    def measured(self) -> dict[str, dict[str, Any]]:
        """ES and DD of the weights to keep, by number of simultaneous edits; they stay in force."""
        self._networks.load_state_dict(self.best.tensors)
        sizes = sorted({size for size in _SIZES if size <= self._recipe.edits_at_once} | {self._recipe.edits_at_once})
        return {str(size): self._measure(self._validation[:_MEASURED], size) for size in sizes}

    def trained(self, *, score: float) -> TrainedEditor:
        """The editor as it is now."""
        return TrainedEditor(base=self._base.fingerprint, config=self.network, networks=self._networks, score=score)

    def _step(self, step: int) -> tuple[float, float]:
        """One step of Adam over groups of edits; returns L_edit and L_loc."""
        groups = drawn_groups(self._train, self._recipe, step)
        with torch.autocast(self._base.device.type, dtype=torch.bfloat16):
            gradients = self._gradients(groups)
            self._networks.show(gradients)
            edit, kept = self._tried(groups, gradients, Probes.losses)
        loss = self._recipe.c_edit * edit + kept
        if not loss.isfinite():
            raise TrainingDiverged(
                f"The loss is not finite after {step} steps.", hint="Lower the learning rate, or the step size."
            )
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._networks.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        return edit.item(), kept.item()

    def _look(self, step: int) -> None:
        """Keep the present weights if they edit the validation cases better than any before."""
        sizes = {1, self._recipe.edits_at_once}
        figures = {str(size): self._measure(self._validation[:_LOOKED_AT], size) for size in sizes}
        if (score := _score(figures)) > self.best.score:
            self.best.keep(score, step, self._networks)
        else:
            self.best.looks_since += 1

    @torch.no_grad()
    def _measure(self, cases: Sequence[Case], size: int) -> dict[str, Any]:
        """ES and DD with so many edits in force together."""
        succeeded: list[bool] = []
        disagreed: list[bool] = []
        rest = whole_groups(cases, size)
        while groups := list(islice(rest, max(1, _EDITS_TRIED // size))):
            right, changed = self._tried(groups, self._gradients(groups), Probes.outcome)
            succeeded += right
            disagreed += changed
        return {"es": _figure(Share.of(succeeded)), "dd": _figure(Share.of(disagreed))}

    def _gradients(self, groups: Sequence[Group]) -> dict[str, Factors]:
        requests = [request for group in groups for request in group.requests]
        return edit_gradients(self._base, self._model, self._networks.sites, requests, end=self.network.end)

    def _tried(
        self,
        groups: Sequence[Group],
        gradients: Mapping[str, Factors],
        judged: Callable[[Probes, PreTrainedModel], tuple[T, T]],
    ) -> tuple[T, T]:
        """What the probes of groups tell, each group's with its own edits in force."""
        probes = Probes.of(self._base, self._model, groups, self.network.end)
        changes = self._networks(gradients)
        with in_force(self._model, changes, owners_of(gradients, groups), probes.groups):
            return judged(probes, self._model)


class Best:
    """The weights to keep, as a file holds them, with the step that made them and their score."""

    def __init__(self) -> None:
        self.score = -float("inf")
        self.step = 0
        self.looks_since = 0
        self.tensors: dict[str, torch.Tensor] = {}

    def keep(self, score: float, step: int, networks: Networks) -> None:
        """Keep a copy of these weights."""
        self.score, self.step, self.looks_since, self.tensors = score, step, 0, stored(networks)

    def state_dict(self) -> dict[str, Any]:
        """Everything it holds."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what was held."""
        vars(self).update(state)


def _sides(path: Path, cases: Sequence[Case], recipe: MendRecipe) -> tuple[list[Case], list[Case]]:
    train, validation = split(cases, recipe.validation_share)
    if not train or not validation or len(train) + len(validation) < LEAST_CASES:
        raise InvalidTrainingData(
            f"{path} has {len(train)} cases to train on and {len(validation)} to measure with.",
            hint=f"At least {LEAST_CASES} are needed, with an edit by question and answer and `out_of_scope` probes.",
        )
    return train, validation


def _score(figures: Mapping[str, Mapping[str, Any]]) -> float:
    """ES - DD, a mean over the numbers of simultaneous edits."""
    return sum(float(own["es"]["value"]) - float(own["dd"]["value"]) for own in figures.values()) / len(figures)


def _figure(share: Share) -> dict[str, float]:
    low, high = share.interval
    return {"value": share.value, "low": low, "high": high, "cases": share.cases}
