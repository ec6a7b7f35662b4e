"""Keys and values: what an MLP's second matrix reads and writes at a subject's last token (Meng et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from editors.model.loading import BaseModel
from editors.surgery.batch import Batch
from editors.surgery.tokens import Lookup
from editors.surgery.trace import captured, ending_at


@torch.no_grad()
def keys_and_values(
    base: BaseModel, model: PreTrainedModel, path: str, lookups: Sequence[Lookup]
) -> tuple[Tensor, Tensor]:
    """What the module at a path reads, k [prompts, in], and writes, v [prompts, out], for each prompt; in float32.

    Args:
        base: Whose tokens and context they are.
        model: The base, edited or not, as a view.
        path: Of the module.
        lookups: At least one.

    Raises:
        ContextExceeded: A prompt is longer than the base's context.
    """
    batch = Batch.of(base, [lookup.ids[: lookup.token + 1] for lookup in lookups])
    with captured(model, path, batch.place([lookup.token for lookup in lookups])) as seen, ending_at(model, path):
        batch.run(model)
    return seen.input.float(), seen.output.float()
