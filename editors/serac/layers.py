"""What an encoder does between its embeddings and its last hidden states, over rows that stand side by side.

The linear layers, the norms and the activation see one matrix of all tokens, and treat each by itself; attention goes
over rows of one length at a time. So the hidden states of a row depend on that row alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from editors.serac.linear import FullLinear, Linear

Shape = tuple[int, int]
"""n rows of t tokens each, which stand one after another."""

Layers = Callable[[Tensor, Sequence[Shape]], Tensor]
"""From the summed embeddings of all tokens, before their norm, to their last hidden states: [tokens, width]."""


class FloatLayers:
    """The layers of a BERT encoder in floating point.

    Args:
        model: The encoder, in Hugging Face's architecture `bert`. It is only read.
        linear: Prepares a linear layer; its outputs' type is that in which attention is computed.
    """

    def __init__(self, model: Any, linear: Callable[[nn.Linear], Linear]) -> None:
        self._norm = model.embeddings.LayerNorm
        self._layers = [_Layer(layer, linear) for layer in model.encoder.layer]

    def __call__(self, x: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """As `Layers`."""
        x = _normalised(x, self._norm)
        for layer in self._layers:
            x = layer(x, shapes)
        return x


class _Layer:
    def __init__(self, layer: Any, linear: Callable[[nn.Linear], Linear]) -> None:
        self._heads = int(layer.attention.self.num_attention_heads)
        self._qkv = linear(queries_keys_values(layer))
        self._mix = linear(layer.attention.output.dense)
        self._norm_mixed = layer.attention.output.LayerNorm
        self._up, self._down = linear(layer.intermediate.dense), linear(layer.output.dense)
        self._norm = layer.output.LayerNorm

    def __call__(self, x: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """The next hidden states, [tokens, width]."""
        mixed = self._mix(attend(self._qkv(x), shapes, self._heads))
        x = _normalised(mixed.to(x.dtype).add_(x), self._norm_mixed)
        raised = nn.functional.gelu(self._up(x))
        return _normalised(self._down(raised).to(x.dtype).add_(x), self._norm)


def full_layers(model: Any) -> FloatLayers:
    """The layers at full precision."""
    return FloatLayers(model, FullLinear)


def queries_keys_values(layer: Any) -> nn.Linear:
    """One linear layer for the three, one after another; the queries come divided by the root of a head's width."""
    own = layer.attention.self
    root = math.sqrt(own.attention_head_size)
    stacked = nn.Linear(own.query.in_features, 3 * own.query.out_features, device="meta")
    weights = [own.query.weight.detach() / root, own.key.weight.detach(), own.value.weight.detach()]
    biases = [own.query.bias.detach() / root, own.key.bias.detach(), own.value.bias.detach()]
    stacked.weight = nn.Parameter(torch.cat(weights), requires_grad=False)
    stacked.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return stacked


def attend(qkv: Tensor, shapes: Sequence[Shape], heads: int) -> Tensor:
    """What each token gathers from its row, [tokens, width], of queries, keys and values [tokens, 3 * width].

    Written out, since for rows this short torch's fused kernel takes two to three times as long on a CPU.
    """
    gathered = []
    for part, (n, t) in parts(qkv, shapes):
        q, k, v = part.view(n, t, 3, heads, -1).permute(2, 0, 3, 1, 4).reshape(3, n * heads, t, -1)
        p = torch.bmm(q, k.transpose(1, 2)).softmax(dim=-1, dtype=torch.float32)  # [n * heads, t, t]
        mixed = torch.bmm(p.to(v.dtype), v)
        gathered.append(mixed.view(n, heads, t, -1).transpose(1, 2).reshape(n * t, -1))
    return torch.cat(gathered)


def parts(x: Tensor, shapes: Sequence[Shape]) -> Iterator[tuple[Tensor, Shape]]:
    """The rows [n * t, ...] of each shape."""
    return zip(x.split([n * t for n, t in shapes]), shapes, strict=True)


def _normalised(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return nn.functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
