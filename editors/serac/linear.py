"""Linear layers prepared for inference, in floating point; `int8` has those in integers.

On a CPU they go through oneDNN, whose kernels compute every row of their input by itself. So an output does not depend
on the rows beside it, bit for bit, and a text can be read in any company.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from editors.model.layouts import lay_out, product

Linear = Callable[[Tensor], Tensor]
"""From [n, in], of any type, to [n, out] of its own."""


class FullLinear:
    """W x + b at full precision.

    On a CPU the weights are laid out for oneDNN, which takes half the time of the BLAS that `nn.Linear` may go through.
    On other devices, and where torch comes without oneDNN, it is `nn.Linear`: there the company changes the rounding.

    Args:
        layer: Whose weights it takes.
    """

    def __init__(self, layer: nn.Linear) -> None:
        weight = layer.weight.detach()
        self._packs = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        self._weight = lay_out(weight) if self._packs else weight
        self._bias = layer.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """From [n, in] to [n, out]."""
        if not self._packs:
            return nn.functional.linear(x, self._weight, self._bias)
        if len(x) == 1:  # a single row has a kernel of its own, which rounds differently
            return self(x.repeat(2, 1))[:1]
        return product(x, self._weight, self._bias)


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16, and torch the kernels that use them."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()


class HalfLinear:
    """W x + b of numbers in bfloat16, summed at full precision; for a CPU that multiplies those.

    Args:
        layer: Whose weights it takes.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self._weight = lay_out(layer.weight.detach().bfloat16())
        self._bias = layer.bias.detach().bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        """From [n, in] to [n, out] in bfloat16."""
        return product(x.bfloat16(), self._weight, self._bias)
