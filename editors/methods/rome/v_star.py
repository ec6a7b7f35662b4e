"""v*: the value that makes the model say the new target (Meng et al. 2022, eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from editors.errors import NonFiniteEdit
from editors.methods.rome.config import RomeConfig
from editors.model.loading import BaseModel
from editors.surgery.batch import Targets
from editors.surgery.tokens import Lookup
from editors.surgery.trace import added


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """Everything that the loss reads: rows of prompts with their target, and one last row, "{subject} is a".

    Attributes:
        targets: The rows; the last has an empty target.
        subjects: The places of the subject's last token, one a row: [rows].
        essence: The place of the last row's last token: [1].
    """

    targets: Targets
    subjects: Tensor
    essence: Tensor

    @classmethod
    def of(cls, base: BaseModel, lookups: Sequence[Lookup], target: Sequence[int], essence: Lookup) -> Objective:
        """Put together prompts, their target's tokens, and the prompt whose answer should stay.

        Raises:
            ContextExceeded: A prompt is too long with its target.
        """
        targets = Targets.of(base, [*((lookup.ids, target) for lookup in lookups), (essence.ids, ())])
        batch = targets.batch
        return cls(
            targets,
            batch.place([lookup.token for lookup in (*lookups, essence)]),
            batch.place([*[0] * len(lookups), len(essence.ids) - 1])[-1:],
        )

    def measure(self, model: PreTrainedModel) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood of a target's token, and log-probabilities of what follows the essence."""
        places = torch.cat([self.targets.places, self.essence])
        log_probabilities = self.targets.batch.log_probabilities(model, places)
        own = log_probabilities[:-1].gather(1, self.targets.ids[:, None])
        return -own.mean(), log_probabilities[-1:]


def v_star(model: PreTrainedModel, path: str, objective: Objective, v_0: Tensor, config: RomeConfig) -> Tensor:
    """Optimise v* = v_0 + delta by Adam, where delta is added to what the module writes at the subject's last token.

    Loss: -log P(target) + kl_factor * KL(edited || unedited) on the essence + weight_decay * ||delta|| / ||v_0||^2.

    Args:
        model: The base with the edits so far, as a view without gradients of its own.
        path: Of the module to edit.
        objective: Prompts and targets.
        v_0: What the module writes there now: [out], float32.
        config: Settings.

    Returns:
        v*, [out], float32.

    Raises:
        NonFiniteEdit: The loss is infinite or undefined.
    """
    with torch.no_grad():
        unedited = objective.measure(model)[1]
    delta = torch.zeros_like(v_0, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=config.learning_rate)
    for _ in range(config.steps):
        with torch.enable_grad(), added(model, path, objective.subjects, delta):
            nll, edited = objective.measure(model)
            kl = kl_div(unedited, edited, log_target=True, reduction="batchmean")
            decay = delta.norm() / v_0.norm() ** 2
            loss = nll + config.kl_factor * kl + config.weight_decay * decay
        if not loss.isfinite():
            raise NonFiniteEdit(
                "The loss of v* is not finite.", hint="Lower the learning rate; prefer bfloat16 to float16."
            )
        if loss < config.stop_loss:
            break
        (delta.grad,) = torch.autograd.grad(loss, [delta])
        optimizer.step()
        _clamp(delta, config.clamp * float(v_0.norm()))
    return v_0 + delta.detach()


@torch.no_grad()
def _clamp(delta: Tensor, longest: float) -> None:
    """Shorten delta in place to the longest norm allowed."""
    length = float(delta.norm())
    if length > longest:
        delta.mul_(longest / length)
