"""Ends of sequences, run again and again: what comes before them, and the layers below a change, run once.

A change at a token of a causal model reaches neither the tokens before it nor the layers below it. So the beginnings
are kept as attention keys and values, and of the ends what the last unchanged layer wrote. Not covered: sequences
longer than a sliding attention window, where padding would be counted as part of the window.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from editors.model.anatomy import anatomy_of
from editors.model.loading import BaseModel
from editors.surgery.batch import Batch
from editors.surgery.trace import ending_at, narrowed


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """The ends of sequences, padded on the right.

    Attributes:
        ids: [rows, tokens].
        mask: [rows, beginning + tokens], 1 at tokens and 0 at padding.
        positions: In their sequences, [rows, tokens].
        starts: The index in each sequence at which its end starts.
        beginnings: Attention keys and values of what comes before; None where nothing does.
        below: Layers that no change reaches, whose work is done.
        written: What the last of them wrote for the ends; None where there are none.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    starts: tuple[int, ...]
    beginnings: Cache | None
    below: tuple[str, ...]
    written: Any

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        base: BaseModel,
        model: PreTrainedModel,
        sequences: Sequence[Sequence[int]],
        starts: Sequence[int],
        layer: int,
    ) -> Tails:
        """Cut sequences in two and run once what will not change.

        Args:
            base: Whose tokens and context they are.
            model: The base, edited or not, as a view.
            sequences: Token ids, at least one sequence.
            starts: For each the index of the first token that a change reaches.
            layer: Index of the lowest layer that it reaches.

        Raises:
            ContextExceeded: A sequence is longer than the base's context.
        """
        whole = Batch.of(base, sequences)
        ends = Batch.of(base, [sequence[start:] for sequence, start in zip(sequences, starts, strict=True)])
        first = torch.tensor(starts, device=base.device)[:, None]
        known = torch.arange(max(starts), device=base.device) < first
        tails = cls(
            ids=ends.ids,
            mask=torch.cat([known.to(ends.mask), ends.mask], dim=1),
            positions=(first + torch.arange(ends.ids.shape[1], device=base.device)).clamp(max=whole.ids.shape[1] - 1),
            starts=tuple(starts),
            beginnings=_run(model, whole.ids[:, : max(starts)]),
            below=tuple(base.anatomy.layer.format(layer=i) for i in range(layer)),
            written=None,
        )
        return tails._with_layers_below(model)

    def _with_layers_below(self, model: PreTrainedModel) -> Tails:
        """The same, with what the last layer below writes, which is read from one pass up to it."""
        if not self.below:
            return self
        seen: list[Any] = []
        handle = model.get_submodule(self.below[-1]).register_forward_hook(lambda _m, _i, output: seen.append(output))
        try:
            with ending_at(model, self.below[-1]):
                self._logits(model, torch.zeros(1, dtype=torch.long, device=self.ids.device), below=())
        finally:
            handle.remove()
        return replace(self, written=seen[0])

    def place(self, tokens: Sequence[int]) -> Tensor:
        """The places, as `surgery.trace` counts them in these ends, of one token of each sequence: [rows]."""
        rows, width = self.ids.shape
        columns = torch.tensor(tokens) - torch.tensor(self.starts)
        return (torch.arange(rows) * width + columns).to(self.ids.device)

    @property
    def occupied(self) -> Tensor:
        """The places in these ends that hold a token, in order."""
        return self.mask[:, -self.ids.shape[1] :].flatten().nonzero()[:, 0]

    def log_probabilities(self, model: PreTrainedModel, places: Tensor) -> Tensor:
        """What follows each place, [places, vocabulary], in nats and float32; gradients flow through it.

        Args:
            model: The view of before, changed only where the ends begin and no lower than the layer given there.
            places: Where.
        """
        return self._logits(model, places, below=self.below).float().log_softmax(dim=-1)

    def _logits(self, model: PreTrainedModel, places: Tensor, *, below: Sequence[str]) -> Tensor:
        """[places, vocabulary]."""
        with _done(model, below, self.written), narrowed(model, anatomy_of(model.config).lm_head, places):
            logits: Tensor = model(
                input_ids=self.ids,
                attention_mask=self.mask,
                position_ids=self.positions,
                past_key_values=_again(self.beginnings),
                use_cache=self.beginnings is not None,
            ).logits
        return logits[0]


def _run(model: PreTrainedModel, ids: Tensor) -> Cache | None:
    """Keys and values of beginnings; padding, which is on the right, is masked when they are used."""
    if ids.shape[1] == 0:
        return None
    with narrowed(model, anatomy_of(model.config).lm_head, torch.zeros(1, dtype=torch.long, device=ids.device)):
        cache: Cache = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True).past_key_values
    return cache


def _again(cache: Cache | None) -> Cache | None:
    """A cache for one pass, which puts its own keys and values after these: a copy that shares their tensors."""
    layers: Any = cache.layers if cache else ()
    return copy.deepcopy(cache, {id(tensor): tensor for layer in layers for tensor in (layer.keys, layer.values)})


@contextmanager
def _done(model: nn.Module, layers: Sequence[str], written: Any) -> Iterator[None]:
    """Let layers give back what was written before instead of computing it."""
    modules: list[Any] = [model.get_submodule(path) for path in layers]
    for module in modules:
        module.forward = lambda *_, **__: written  # on the view's own module, in place of its class's
    try:
        yield
    finally:
        for module in modules:
            del module.forward
