"""Ends of sequences, run again and again: what comes before them, and the layers below a change, run once.

A change at a token of a causal model reaches neither the tokens before it nor the layers below it. So the beginnings
are kept as attention keys and values, and of the ends what the last unchanged layer wrote. Not covered: sequences
longer than a sliding attention window, where padding would be counted as part of the window.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from editors.model.anatomy import anatomy_of
from editors.model.loading import BaseModel
from editors.surgery.batch import Batch
from editors.surgery.trace import ending_at, narrowed, written


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """The ends of sequences, padded on the right.

    Attributes:
        ids: [rows, tokens].
        mask: [rows, beginning + tokens], 1 at tokens and 0 at padding.
        positions: In their sequences, [rows, tokens].
        starts: The index in each sequence at which its end starts.
        beginnings: Attention keys and values of what comes before; None where nothing does.
        settled: What modules wrote for the ends that no change reaches, by their paths: for the layers below what the
            last of them wrote, and in the changed layer what its innermost modules wrote, as far as the change.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    starts: tuple[int, ...]
    beginnings: Cache | None
    settled: Mapping[str, Any]

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
            settled={},
        )
        return tails._settled_below(model, layer)

    def _settled_below(self, model: PreTrainedModel, layer: int) -> Tails:
        """The same, with what is settled, which is read from one pass up to what a change of this layer changes."""
        anatomy = anatomy_of(model.config)
        below = [anatomy.layer.format(layer=i) for i in range(layer)]
        own = f"{anatomy.layer.format(layer=layer)}."
        innermost = [
            path for path, module in model.named_modules() if path.startswith(own) and not any(module.children())
        ]
        with (
            written(model, [*below[-1:], *innermost]) as seen,
            ending_at(model, anatomy.within(layer, anatomy.mlp_out)),
        ):
            self._logits(model, torch.zeros(1, dtype=torch.long, device=self.ids.device))
        once = {path: outputs[0] for path, outputs in seen.items() if len(outputs) == 1}
        return replace(self, settled=once | (dict.fromkeys(below, once[below[-1]]) if below else {}))

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
        return self._logits(model, places).float().log_softmax(dim=-1)

    def _logits(self, model: PreTrainedModel, places: Tensor) -> Tensor:
        """[places, vocabulary]."""
        with _done(model, self.settled), narrowed(model, anatomy_of(model.config).lm_head, places):
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
def _done(model: nn.Module, settled: Mapping[str, Any]) -> Iterator[None]:
    """Let modules give back what they wrote before instead of computing it."""
    modules: list[tuple[Any, Any]] = [(model.get_submodule(path), output) for path, output in settled.items()]
    own = [vars(module).get("forward") for module, _ in modules]  # on the view's own module, in place of its class's
    for module, output in modules:
        module.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for (module, _), forward in zip(modules, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward
