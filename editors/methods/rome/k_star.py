"""k*: the key that stands for a subject, averaged over what may come before it (Meng et al. 2022, eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from editors.model.loading import BaseModel
from editors.surgery.keys import keys_and_values
from editors.surgery.tokens import Lookup


@dataclass(frozen=True, slots=True, eq=False)
class Association:
    """What the edited module does at the subject's last token before the edit.

    Attributes:
        k_star: The key averaged over the prefixes, the bare prompt among them: [in].
        v: What the module writes for it: [out].
        k_bare: The key of the bare prompt: [in].
        v_bare: What the module writes for it: [out].
    """

    k_star: Tensor
    v: Tensor
    k_bare: Tensor
    v_bare: Tensor


def associate(base: BaseModel, model: PreTrainedModel, path: str, lookups: Sequence[Lookup]) -> Association:
    """Compute keys and values with the edits so far.

    The module is linear, so what it writes for the mean key is the mean of what it writes for the keys.

    Args:
        base: Whose tokens they are.
        model: The base with the edits so far, as a view.
        path: Of the module to edit.
        lookups: The prompt, first bare and then after each prefix.

    Raises:
        ContextExceeded: A prompt is longer than the base's context.
    """
    keys, values = keys_and_values(base, model, path, lookups)
    return Association(keys.mean(dim=0), values.mean(dim=0), keys[0], values[0])
