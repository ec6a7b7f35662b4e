"""The layers of an encoder in 8-bit integers: codes from -127 to 127 for weights and for what they multiply.

Affine quantisation (Jacob et al. 2018, eq. 1): with W = scale w and x = step u for integers w and u, W x = scale step
(w u), and the products are summed exactly. Every row of W has a scale, and what it multiplies has steps of two kinds:

- what leaves a norm is as large in one row as in another. So hidden states are kept as the norm leaves them, before
  its gain and offset, in steps of each column that are the same for every row; gain and offset are part of the weights
  that follow. A few columns reach far, always the same ones: reading random words shows which;
- what attention and activation put out has a step for each row, by its largest number.

A step depends on the weights or on its own row, so what comes of a row is the same in any company, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from editors.serac.layers import Shape, attend, queries_keys_values

_MAX = 127
_LEAST_STEP = 1e-12
"""Keeps a row of zeros from a division by zero."""
_MARGIN = 2
"""How much further texts may reach than random words."""
_LEAST_REACH = 4.0
"""In standard deviations of a row."""
_WORDS = (64, 24)
"""Rows of random words, and tokens in each."""


def multiplies_int8() -> bool:
    """Whether this CPU has instructions for products of 8-bit integers (VNNI), and torch the kernels that use them."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()


class Int8Layers:
    """The layers of a BERT encoder, as `layers.Layers`.

    Args:
        model: The encoder, in Hugging Face's architecture `bert`. It is only read.
    """

    def __init__(self, model: Any) -> None:
        reaches = iter(_reaches(model))
        self._first = self._last = _Norm(model.embeddings.LayerNorm, next(reaches))
        self._layers: list[_Layer] = []
        for layer in model.encoder.layer:
            own = layer.attention.output.LayerNorm, layer.output.LayerNorm
            between, last = (_Norm(norm, reach) for norm, reach in zip(own, reaches, strict=False))
            self._layers.append(_Layer(layer, self._last, between, last))
            self._last = last

    def __call__(self, x: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """The last hidden states, [tokens, width], of summed embeddings."""
        z = self._first(x)
        for layer in self._layers:
            z = layer(z, shapes)
        return self._last.undo(z, self._last.offset)


class _Layer:
    """From what the norm before it leaves to what its own leaves."""

    def __init__(self, layer: Any, before: _Norm, between: _Norm, last: _Norm) -> None:
        mix, down = layer.attention.output.dense, layer.output.dense
        self._heads = int(layer.attention.self.num_attention_heads)
        self._before, self._between, self._last = before, between, last
        self._qkv = before.into(queries_keys_values(layer), to=torch.bfloat16)
        self._mix, self._mix_offset = _Codes(mix.weight), before.offset + mix.bias.detach()
        self._up = between.into(layer.intermediate.dense, gelu=True)
        self._down, self._down_offset = _Codes(down.weight), between.offset + down.bias.detach()

    def __call__(self, z: Tensor, shapes: Sequence[Shape]) -> Tensor:
        gathered = attend(self._qkv(_codes(z)), shapes, self._heads).float()
        z = self._between(_add_product(self._before.undo(z, self._mix_offset), gathered, self._mix))
        raised = self._up(_codes(z))
        return self._last(_add_product(self._between.undo(z, self._down_offset), raised, self._down))


class _Norm:
    """A norm whose outputs are in steps: gain and offset are left to what follows.

    Args:
        norm: Whose gain and offset it takes.
        reach: What 127 steps are in each column, [n], in standard deviations of a row.
    """

    def __init__(self, norm: nn.LayerNorm, reach: Tensor) -> None:
        self._shape, self._eps = norm.normalized_shape, norm.eps
        self._per_step = _MAX / reach
        self.gain, self.offset = norm.weight.detach() * reach / _MAX, norm.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """[n, width], between -127 and 127."""
        return nn.functional.layer_norm(x, self._shape, self._per_step, None, self._eps).clamp_(-_MAX, _MAX)

    def undo(self, z: Tensor, offset: Tensor) -> Tensor:
        """What the norm puts out with gain, and another offset."""
        return torch.addcmul(offset, z, self.gain)

    def into(self, layer: nn.Linear, **options: Any) -> _Codes:
        """A linear layer that takes the codes of what this puts out."""
        weight = layer.weight.detach()
        return _Codes(weight * self.gain, layer.bias.detach() + weight @ self.offset, **options)


class _Codes:
    """W u + b for codes u.

    Args:
        weight: W, [out, in].
        bias: b, [out].
        to: Of the outputs.
        gelu: Whether they go through that.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, to: torch.dtype = torch.float32, gelu: bool = False
    ) -> None:
        weight = weight.detach()
        self._scale = (weight.abs().amax(dim=1) / _MAX).clamp_min(_LEAST_STEP)
        self._packed = torch.ops.onednn.qlinear_prepack((weight / self._scale[:, None]).round().to(torch.int8), None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias, self._to = bias, to
        self._post: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")

    def __call__(self, u: Tensor) -> Tensor:
        """From codes [n, in], moved up by 128, to [n, out]."""
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            u, 1.0, 128, self._packed, self._scale, self._zeros, self._bias, 1.0, 0, self._to, *self._post
        )
        return y


def _add_product(x: Tensor, y: Tensor, weight: _Codes) -> Tensor:
    """The sum of x and W y, with a step for each row of y."""
    step = torch.maximum(y.amax(dim=1, keepdim=True), y.amin(dim=1, keepdim=True).neg_())  # [n, 1]
    step = step.mul_(1 / _MAX).add_(_LEAST_STEP)
    return torch.addcmul(x, weight(_codes(y * step.reciprocal())), step)


def _codes(x: Tensor) -> Tensor:
    """Rounded, and moved up by 128: through signed integers, to which torch converts quicker."""
    return x.round().to(torch.int8).view(torch.uint8).bitwise_xor_(128)


def _reaches(model: Any) -> list[Tensor]:
    """How far each column of what each norm puts out may reach, in the norms' order, each [width].

    No number of a row of n is more than sqrt(n - 1) standard deviations from the mean, and only a few columns come near
    that; to give it to all would leave the others few of their steps.
    """
    reaches: list[Tensor] = []

    def note(norm: nn.LayerNorm, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        largest = nn.functional.layer_norm(inputs[0], norm.normalized_shape).abs().amax(dim=(0, 1))
        reaches.append((_MARGIN * largest).clamp(_LEAST_REACH, math.sqrt(len(largest) - 1)))

    words = torch.randint(model.config.vocab_size, _WORDS, generator=torch.Generator().manual_seed(0))
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.LayerNorm)]
    try:
        with torch.inference_mode():
            model(input_ids=words)
    finally:
        for hook in hooks:
            hook.remove()
    return [reach.clone() for reach in reaches]
