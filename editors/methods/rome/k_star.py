"""k*: the key that stands for a subject, averaged over what may come before it (Meng et al. 2022, eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from editors.model.loading import BaseModel
from editors.surgery.keys import keys_and_values
from editors.surgery.tokens import Lookup


@dataclass(frozen=True, slots=True, eq=False)
class Association:
    """What the edited module does at the subject's last token before the edit.

    Attributes:
        k_star: The key averaged over the prefixes, the bare prompt among them, and over forms: [in].
        v: What the module writes for it: [out].
        k_bare: The key of the bare prompt: [in].
        v_bare: What the module writes for it: [out].
    """

    k_star: Tensor
    v: Tensor
    k_bare: Tensor
    v_bare: Tensor


def associate(base: BaseModel, model: PreTrainedModel, path: str, forms: Sequence[Sequence[Lookup]]) -> Association:
    """Compute keys and values with the edits so far: means over what comes before, and then over the subject's forms.

    The module is linear, so what it writes for the mean key is the mean of what it writes for the keys.

    Args:
        base: Whose tokens they are.
        model: The base with the edits so far, as a view.
        path: Of the module to edit.
        forms: For each form of the subject, texts with it; the first is the bare prompt.

    Raises:
        ContextExceeded: A prompt is longer than the base's context.
    """
    found = [keys_and_values(base, model, path, lookups) for lookups in forms]
    k_star, v = (torch.stack([one[i].mean(dim=0) for one in found]).mean(dim=0) for i in (0, 1))
    return Association(k_star, v, found[0][0][0], found[0][1][0])
