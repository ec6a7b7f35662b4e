"""Modules of a view that compute the same in less time, on a CPU and in float32.

The BLAS that torch multiplies float32 matrices with is slow for few rows, and on processors that it was not written
for: oneDNN, with weights laid out for it once, takes a third of the time or less. GELU as GPT-2 has it is written out,
in eight passes over what it reads; torch has it in one. Sums are rounded in another order, so this is for computing
edits; what is served has layouts of its own (`editors.model.layouts`), without gradients.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from editors.model.layouts import is_helped, lay_out, product
from editors.model.loading import BaseModel

_LAID_OUT_AFTER = 2
"""Uses of a layer after which it is laid out, which takes as long as a few uses, unless many are sure to come."""
_MOST_BYTES = 2**31
"""Memory that layouts may take, which come to twice the weights; other layers of a larger model stay as they are."""


class Quick:
    """Quickens views of one base. Layouts of what they share with it are kept from one view to the next.

    Args:
        base: The model.
        at_once: Lay layers out at their first use, for work that is sure to use them many times.
    """

    def __init__(self, base: BaseModel, *, at_once: bool = False) -> None:
        self._helps = is_helped(base)
        self._layouts: dict[int, _Layouts | None] = {p.data_ptr(): None for p in base.model.parameters()}
        self._room = _MOST_BYTES
        self._after = 0 if at_once else _LAID_OUT_AFTER

    def __call__(self, view: PreTrainedModel) -> PreTrainedModel:
        """Let a view's modules take less time where that helps. Gradients flow to inputs alone.

        Args:
            view: Which nobody else uses, and whose parameters need no gradient.
        """
        modules: list[Any] = list(view.modules()) if self._helps else []
        for module in modules:
            kind = type(module)
            if kind in {nn.Linear, Conv1D} and (layouts := self._layouts_of(module)):
                module.forward = layouts.multiply
            elif kind is NewGELUActivation:
                module.forward = partial(gelu, approximate="tanh")
        return view

    def _layouts_of(self, module: nn.Module) -> _Layouts | None:
        weight = module.get_parameter("weight")
        place = weight.data_ptr()
        if known := self._layouts.get(place):
            return known
        size = 2 * weight.numel() * weight.element_size()
        if size > self._room:
            return None
        made = _Layouts(module, self._after)
        if place in self._layouts:  # of the base, and not of this view alone
            self._layouts[place] = made
            self._room -= size
        return made


class _Layouts:
    """The weight of a linear layer, and what oneDNN makes of it for either direction."""

    def __init__(self, module: Any, after: int) -> None:
        self._plain = type(module).forward, module
        weight: Tensor = module.weight.detach()
        self._weight = weight if isinstance(module, nn.Linear) else weight.T  # [out, in]
        self._bias: Tensor | None = None if module.bias is None else module.bias.detach()
        self._plain_uses = after
        self._forwards: Tensor | None = None
        self._backwards: Tensor | None = None

    def multiply(self, x: Tensor) -> Tensor:
        """W x + b, from [..., in] to [..., out]."""
        if self._plain_uses:
            self._plain_uses -= 1
            forward, module = self._plain
            plain: Tensor = forward(module, x)
            return plain
        quick: Tensor = _Multiplication.apply(x, self)  # type: ignore[no-untyped-call]
        return quick

    def forwards(self, x: Tensor) -> Tensor:
        """W x + b."""
        if self._forwards is None:
            self._forwards = lay_out(self._weight)
        return product(x, self._forwards, self._bias)

    def backwards(self, gradient: Tensor) -> Tensor:
        """W^T g."""
        if self._backwards is None:
            self._backwards = lay_out(self._weight.T)
        return product(gradient, self._backwards, None)


class _Multiplication(torch.autograd.Function):
    """A linear layer whose weight is fixed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layouts: _Layouts) -> Tensor:
        """From [..., in] to [..., out]."""
        ctx.layouts = layouts
        return layouts.forwards(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient for x."""
        return ctx.layouts.backwards(gradients[0].contiguous()), None
