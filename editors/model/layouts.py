"""Linear weights laid out for oneDNN, with which a model answers faster on a CPU in float32.

The BLAS that torch multiplies float32 matrices with is slow for few rows, and on processors that it was not written
for; it also rounds one row otherwise than many. oneDNN, with weights laid out for it once, takes about half the time
for a batch that writes, and rounds a row alike whatever stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from editors.model.loading import BaseModel
from editors.model.views import view

MOST_BYTES = 2**31
"""Memory that layouts may take unless more is allowed: all weights of a model of half a billion parameters."""


FEWEST_WEIGHTS = 2**19
"""That are worth it: a product of fewer is over before several threads have shared it, which oneDNN has them do."""


class Layouts:
    """The linear weights of a model, laid out; its versions share those that they do not change.

    Args:
        base: The model, which is only read.
        most_bytes: Memory for the layouts, which are as large as the weights. Layers are laid out in the model's order
            for as long as there is room, and the others are left to torch.
        fewest_weights: Of a layer; smaller ones are left to torch.

    Attributes:
        size: Bytes that they take. A version takes as much again as its edited weights, where the base's are laid out.
    """

    def __init__(self, base: BaseModel, *, most_bytes: int = MOST_BYTES, fewest_weights: int = FEWEST_WEIGHTS) -> None:
        self.size = 0
        self._layouts: dict[str, _Layout] = {}
        for name, module in _linear(base.model) if is_helped(base) else ():
            weight = module.get_parameter("weight")
            if weight.numel() >= fewest_weights and self.size + weight.nbytes <= most_bytes:
                self._layouts[name] = _Layout.of(module)
                self.size += weight.nbytes

    def served(self, model: BaseModel) -> BaseModel:
        """The base, or a version of it, as it answers: a view whose linear layers multiply through oneDNN.

        What a layer computes differs from the model's own in the last digits alone. No gradients flow, and a view of
        the view would not know that its weights are others: make views of the model.
        """
        if not self._layouts:
            return model
        quick: PreTrainedModel = view(model.model)
        for name, module in _linear(quick):
            if known := self._layouts.get(name):
                own = known if known.holds(module) else _Layout.of(module)
                module.forward = own.multiply
        return replace(model, model=quick)


def is_helped(model: BaseModel) -> bool:
    """Whether layouts do anything for a model."""
    return model.device.type == "cpu" and model.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def lay_out(weight: Tensor) -> Tensor:
    """A weight [out, in] as `product` takes it."""
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return laid_out


def product(x: Tensor, laid_out: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b, from [..., in] to [..., out]. Two rows or more are each rounded alike, however many they are."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "none", [], "")
    return y


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """A linear layer, laid out; `weight` is where it was read from, and stays there."""

    weight: Tensor
    laid_out: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, module: nn.Module) -> _Layout:
        weight = module.get_parameter("weight").detach()
        bias: Tensor | None = getattr(module, "bias", None)
        oriented = weight if isinstance(module, nn.Linear) else weight.T  # [out, in]
        return cls(weight, lay_out(oriented), None if bias is None else bias.detach())

    def holds(self, module: nn.Module) -> bool:
        """Whether a module has this very weight and bias."""
        held = _Layout._places(module.get_parameter("weight"), getattr(module, "bias", None))
        return held == _Layout._places(self.weight, self.bias)

    def multiply(self, x: Tensor) -> Tensor:
        """W x + b. A single row is multiplied as two: alone, it would be rounded otherwise than in company."""
        if x.numel() != x.shape[-1]:
            return product(x, self.laid_out, self.bias)
        twice = x.reshape(1, -1).expand(2, -1).contiguous()
        return product(twice, self.laid_out, self.bias)[:1].reshape(*x.shape[:-1], -1)

    @staticmethod
    def _places(weight: Tensor, bias: Tensor | None) -> tuple[int, int | None]:
        return weight.data_ptr(), None if bias is None else bias.data_ptr()


def _linear(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if type(module) in {nn.Linear, Conv1D})
