"""v*: the value that makes the model say the new target (Meng et al. 2022, eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from editors.errors import NonFiniteEdit
from editors.methods.rome.config import RomeConfig
from editors.methods.rome.update import shares
from editors.model.loading import BaseModel
from editors.surgery.tails import Tails
from editors.surgery.tokens import Lookup
from editors.surgery.trace import added, captured


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """Which tokens an edit reaches, and how: as the rank-one change of a matrix would, for any key.

    Attributes:
        direction: C^-1 k*: [in].
        k: The key that the change is scaled by: [in].
    """

    direction: Tensor
    k: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """Everything that the loss reads: rows of prompts with their target, and one last row, "{subject} is a".

    Attributes:
        model: The base with the edits so far, as a view without gradients of its own.
        path: Of the module to edit.
        tails: The rows, from the first token that the edit reaches.
        places: Of the tokens before each of the targets' tokens, and of the last row's last token: [target tokens + 1].
        ids: The targets' tokens: [target tokens].
        reached: Places that the edit reaches: [reached].
        shares: Of delta, how much each of them gets: [reached].
        unedited: Log-probabilities of what follows the last row without the edit: [1, vocabulary].
    """

    model: PreTrainedModel
    path: str
    tails: Tails
    places: Tensor
    ids: Tensor
    reached: Tensor
    shares: Tensor
    unedited: Tensor

    @classmethod
    def of(
        cls,
        base: BaseModel,
        model: PreTrainedModel,
        layer: int,
        lookups: Sequence[Lookup],
        target: Sequence[int],
        essence: Lookup,
        reach: Reach | None,
    ) -> Objective:
        """Put together prompts, their target's tokens, and the prompt whose answer should stay; run once what can be.

        Args:
            base: Whose tokens and context they are.
            model: The base with the edits so far, as a view without gradients of its own.
            layer: Index of the layer to edit.
            lookups: The prompt, bare and after each prefix.
            target: Tokens.
            essence: "{subject} is a".
            reach: How the edit reaches the tokens from the subject on; None, and it reaches the subject's last alone.

        Raises:
            ContextExceeded: A prompt is too long with its target.
        """
        rows = [*((lookup, target) for lookup in lookups), (essence, ())]
        starts = [lookup.token if reach is None else lookup.first for lookup, _ in rows]
        sequences = [[*lookup.ids, *ids[:-1]] for lookup, ids in rows]  # nobody asks what follows a target
        tails = Tails.of(base, model, sequences, starts, layer)
        before = [
            tails.place([len(lookup.ids) - 1 + n for lookup, _ in rows])[:-1] for n in range(len(target))
        ]  # [target] of [rows]
        places = torch.cat([*before, tails.place([len(lookup.ids) - 1 for lookup, _ in rows])[-1:]])
        path = base.anatomy.within(layer, base.anatomy.mlp_out)
        with torch.no_grad(), captured(model, path) as seen:
            unedited = tails.log_probabilities(model, places[-1:])
        subjects = tails.place([lookup.token for lookup, _ in rows])
        return cls(
            model=model,
            path=path,
            tails=tails,
            places=places,
            ids=torch.tensor(target, device=base.device).repeat_interleave(len(lookups)),
            reached=subjects if reach is None else tails.occupied,
            shares=torch.ones(len(subjects), device=base.device)
            if reach is None
            else shares(reach.direction, seen.input[tails.occupied], reach.k),
            unedited=unedited,
        )

    def measure(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """What an edit does by which the module writes delta [out] more at the subject's last token.

        Returns:
            Mean negative log-likelihood of a target's token, and KL(edited || unedited) on the last row.
        """
        with added(self.model, self.path, self.reached, self.shares[:, None] * delta):
            log_probabilities = self.tails.log_probabilities(self.model, self.places)
        of_targets, last = log_probabilities.split([len(self.ids), 1])  # whose gradient is put together in one pass
        own = of_targets.gather(1, self.ids[:, None])
        kl = kl_div(self.unedited, last, log_target=True, reduction="batchmean")
        return -own.mean(), kl


def v_star(objectives: Sequence[Objective], v_0: Tensor, config: RomeConfig) -> Tensor:
    """Optimise v* = v_0 + delta by Adam, where delta is added to what the module writes at the subject's last token.

    Loss: -log P(target) + kl_factor * KL(edited || unedited) on the essence + weight_decay * ||delta|| / ||v_0||^2.

    Args:
        objectives: Prompts and targets: each step takes the next, and v* is good enough when it is so for all in turn.
        v_0: What the module writes there now: [out], float32.
        config: Settings.

    Returns:
        v*, [out], float32.

    Raises:
        NonFiniteEdit: The loss is infinite or undefined.
    """
    delta = torch.zeros_like(v_0, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=config.learning_rate)
    good_enough = 0
    for objective in islice(cycle(objectives), config.steps):
        with torch.enable_grad():
            nll, kl = objective.measure(delta)
            loss = nll + config.kl_factor * kl + config.weight_decay * delta.norm() / v_0.norm() ** 2
        if not loss.isfinite():
            raise NonFiniteEdit(
                "The loss of v* is not finite.", hint="Lower the learning rate; prefer bfloat16 to float16."
            )
        good_enough = good_enough + 1 if nll < config.stop_loss else 0
        if good_enough == len(objectives):
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
