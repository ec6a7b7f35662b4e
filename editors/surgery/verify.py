"""The least that a delta must do, whichever method made it: hold finite numbers, and make its targets likelier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from editors.delta import Delta, install
from editors.errors import IneffectiveEdit, NonFiniteEdit
from editors.method import EditRequest
from editors.model.loading import BaseModel
from editors.model.views import view
from editors.surgery.batch import targets_of

CERTAIN = -1e-3
"""Mean log-probability, in nats, of a target that cannot be made much likelier."""


def refuse_non_finite(delta: Delta) -> None:
    """Raise when a delta cannot be installed.

    Raises:
        NonFiniteEdit: It holds an infinite or undefined number.
    """
    if not delta.is_finite:
        raise NonFiniteEdit(
            "The edit came out with infinite or undefined numbers.",
            hint="Lower the learning rate, or raise the ridge, where the method has one; float16 overflows easily.",
        )


@torch.no_grad()
def verify(base: BaseModel, delta: Delta, requests: Sequence[EditRequest]) -> None:
    """Raise when a delta does not do what it was made for.

    Raises:
        NonFiniteEdit: It holds an infinite or undefined number, or makes the model compute one.
        IneffectiveEdit: A target is no likelier after its prompt than in the base, and not certain either.
    """
    refuse_non_finite(delta)
    plain = [EditRequest(prompt=request.prompt, target=request.target) for request in requests]
    targets = targets_of(base, plain)

    def measured(model: PreTrainedModel) -> Tensor:
        return targets.mean_log_probabilities(targets.batch.log_probabilities(model, targets.places))

    before, after = measured(view(base.model)), measured(install(base, delta))
    if not after.isfinite().all():
        raise NonFiniteEdit("The edited model computes undefined numbers.", hint="Make a smaller edit.")
    for request, was, now in zip(requests, before.tolist(), after.tolist(), strict=True):
        if now <= was and now < CERTAIN:
            raise IneffectiveEdit(
                f"{request.target!r} after {request.prompt!r} is no likelier with the edit: its tokens' mean "
                f"log-probability went from {was:.3f} to {now:.3f}.",
                hint="Take more steps, another layer, or fewer edits at once.",
            )
