"""Linear layers prepared for inference: at full precision, or in 8-bit integers where the CPU multiplies those.

On a CPU both go through oneDNN, whose kernels compute every row of their input by itself. So an output does not depend
on the rows beside it, bit for bit, and a text can be read in any company.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Linear = Callable[[Tensor], Tensor]
"""From float32 [n, in] to float32 [n, out]."""

_INT8_MAX = 127
_UINT8_MAX = 255
_LEAST_STEP = 1e-12
"""Keeps a row of equal numbers from a division by zero."""


def multiplies_int8() -> bool:
    """Whether this CPU has instructions for products of 8-bit integers (VNNI), and torch the kernels that use them."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()


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
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._packs else weight
        self._bias = layer.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """From [n, in] to [n, out]."""
        if not self._packs:
            return nn.functional.linear(x, self._weight, self._bias)
        if len(x) == 1:  # a single row has a kernel of its own, which rounds differently
            return self(x.repeat(2, 1))[:1]
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


class Int8Linear:
    """W x + b in 8-bit integers: one scale for each row of W, a scale and an offset for each row of x as it comes.

    Affine quantisation (Jacob et al. 2018, eq. 1): with x = low + step u and W = scale w, for integers u in 0..255 and
    w in -127..127, W x = scale step (w u) + low W 1. The products w u are summed exactly. An offset for each row lets
    u span what the row spans, which in this encoder reaches much further to one side.

    Args:
        layer: Whose weights it takes.
    """

    def __init__(self, layer: nn.Linear) -> None:
        weight = layer.weight.detach()
        scale = (weight.abs().amax(dim=1) / _INT8_MAX).clamp_min(_LEAST_STEP)
        w = (weight / scale[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(w, None)
        self._scale, self._zeros = scale, torch.zeros(len(scale), dtype=torch.int64)
        self._of_ones = w.sum(dim=1) * scale  # W 1
        self._bias = layer.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """From [n, in] to [n, out]."""
        low = x.amin(dim=1, keepdim=True)  # [n, 1]
        step = x.amax(dim=1, keepdim=True).sub_(low).mul_(1 / _UINT8_MAX).add_(_LEAST_STEP)
        per_step = step.reciprocal()
        # Rounded to signed integers, for which torch has the quicker kernel, and moved up by 128.
        codes = torch.addcmul(-128 - low * per_step, x, per_step).round_().to(torch.int8)
        u = codes.view(torch.uint8).bitwise_xor_(128)
        y = torch.ops.onednn.qlinear_pointwise(
            u, 1.0, 0, self._packed, self._scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(self._bias, y, step).addcmul_(low, self._of_ones)
