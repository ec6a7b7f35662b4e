"""Settling an edit: the trained step, as long as it must be, and then as exact as it must be.

MEND's networks take one step, whose length they learnt for edits in general (Mitchell et al. 2022a, sec. 3.2). For one
edit it may be too long, which disturbs what should stay, or fall short by a token that another one beats. Both show on
the edit's own prompt, so both are corrected there: the step is shortened, and where it no longer holds, what the change
writes, U, goes down the gradient a few times. What it answers to, V, stays as the networks made it, and with it how the
edit carries over to other phrasings and how little else it touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from editors.methods.mend.config import MendConfig
from editors.methods.mend.objective import in_force
from editors.surgery.batch import Targets

_LENGTHS = (0.4, 0.6)
"""Of the step, as multiples of the learned one, shortest first. Longer ones disturb more than the descent does."""
_RATE = 0.1
"""Length of a step of descent, as a share of the norm of what the edit writes at a site."""

Changes = Mapping[str, tuple[Tensor, Tensor]]
"""Factors by module, u [out, tokens] and v [tokens, in]."""


class OwnPrompts:
    """The edits' own prompts with their targets, asked again and again with changes in force.

    Args:
        model: A view whose parameters need no gradient; it carries hooks while it is asked.
        passes: A row for each edit, in batches.
        untouched: Paths of the blocks before all changes: they run once for each batch.
    """

    def __init__(self, model: PreTrainedModel, passes: Sequence[Targets], untouched: Sequence[str]) -> None:
        self.edits = sum(len(targets.batch.ids) for targets in passes)
        self._model = model
        self._passes = [(targets, _Replay(model, untouched)) for targets in passes]

    def likely(self, changes: Changes, owners: Mapping[str, Tensor], rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch by batch, the log-probability of each target token, and the least of each edit's tokens: [rows].

        Args:
            changes: In force meanwhile.
            owners: The group of each of their tokens, by module: [tokens].
            rows: The group of each edit: [edits].
        """
        first = 0
        for targets, replay in self._passes:
            last = first + len(targets.batch.ids)
            with in_force(self._model, changes, owners, rows[first:last]), replay.untouched():
                log_probabilities = targets.batch.log_probabilities(self._model, targets.places)
            own = log_probabilities.gather(1, targets.ids[:, None])[:, 0]
            least = own.detach().new_zeros(last - first)
            yield own, least.scatter_reduce(0, targets.rows, own.detach(), "amin", include_self=False)
            first = last

    @property
    def rows(self) -> list[Tensor]:
        """Batch by batch, the row of each target token."""
        return [targets.rows for targets, _ in self._passes]


def settle(
    prompts: OwnPrompts, changes: Changes, owners: Mapping[str, Tensor], config: MendConfig
) -> dict[str, tuple[Tensor, Tensor]]:
    """Changes after which every edit holds on its own prompt, or as nearly as the settings allow.

    An edit holds when no token of its target is less likely than `config.certainty`. Lengths are chosen for each edit
    alone; the descent is of all together, since edits that are in force together may stand in each other's way.

    Args:
        prompts: Of the edits.
        changes: As the networks give them.
        owners: The edit of each of their tokens, by module: [tokens].
        config: Settings of the edit, with a certainty.
    """
    assert config.certainty is not None, "else there is nothing to settle"
    with torch.no_grad():
        lengths = _lengths(prompts, changes, owners, config.certainty)
    found = {path: (u * lengths[owners[path]], v) for path, (u, v) in changes.items()}
    for _ in range(config.steps):
        descended = _descended(prompts, found, owners, config.certainty)
        if descended is None:
            break
        found = descended
    return found


def _lengths(prompts: OwnPrompts, changes: Changes, owners: Mapping[str, Tensor], certainty: float) -> Tensor:
    """For each edit the shortest length with which it holds, or else that with which it comes nearest: [edits]."""
    some = next(iter(owners.values()))
    alone = torch.arange(prompts.edits, device=some.device)
    lengths, nearest = torch.ones(prompts.edits, device=some.device), torch.zeros(prompts.edits, device=some.device)
    for length in _LENGTHS:
        scaled = {path: (length * u, v) for path, (u, v) in changes.items()}
        least = torch.cat([least for _, least in prompts.likely(scaled, owners, alone)]).exp()
        nearer = (nearest < certainty) & (least > nearest)
        lengths[nearer], nearest[nearer] = length, least[nearer]
    return lengths


def _descended(
    prompts: OwnPrompts, changes: Changes, owners: Mapping[str, Tensor], certainty: float
) -> dict[str, tuple[Tensor, Tensor]] | None:
    """The changes after one step of normalised descent for the edits that do not hold; None where all do."""
    leaves = {path: (u.detach().requires_grad_(), v) for path, (u, v) in changes.items()}
    written = [u for u, _ in leaves.values()]
    together = {path: torch.zeros_like(own) for path, own in owners.items()}
    rows = torch.zeros(prompts.edits, dtype=torch.long, device=written[0].device)
    gradients, wanting = [torch.zeros_like(u) for u in written], []
    with torch.enable_grad():
        for (own, least), row in zip(prompts.likely(leaves, together, rows), prompts.rows, strict=True):
            wanting.append(least.exp() < certainty)
            if wanting[-1].any():
                parts = torch.autograd.grad(-own[wanting[-1][row]].sum(), written)
                gradients = [total + part for total, part in zip(gradients, parts, strict=True)]
    if not any(some.any() for some in wanting):
        return None
    return {
        path: (_down(u.detach(), gradient, owners[path], torch.cat(wanting)), v)
        for (path, (u, v)), gradient in zip(leaves.items(), gradients, strict=True)
    }


def _down(u: Tensor, gradient: Tensor, owner: Tensor, wanting: Tensor) -> Tensor:
    """U after a step down the gradient, for each edit of a length in proportion to its own part of U: [out, tokens]."""

    def norms(x: Tensor) -> Tensor:
        return x.new_zeros(len(wanting)).index_add(0, owner, x.square().sum(dim=0)).sqrt()

    steps = _RATE * wanting * norms(u) / norms(gradient).clamp_min(torch.finfo(u.dtype).tiny)
    return u - steps[owner] * gradient


class _Replay:
    """Modules of a view that run once, and then give again what they gave, for a batch that stays the same."""

    def __init__(self, model: PreTrainedModel, paths: Sequence[str]) -> None:
        self._modules = [model.get_submodule(path) for path in paths]
        self._outputs: list[Any] = []

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Run them in the block for the first time, and after that let them replay."""
        with ExitStack() as stack:
            for place, module in enumerate(self._modules):
                if place < len(self._outputs):
                    module.forward = _Constant(self._outputs[place])
                    stack.callback(delattr, module, "forward")
                else:
                    handle = module.register_forward_hook(self._record)
                    stack.callback(handle.remove)
            yield

    def _record(self, _module: torch.nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        self._outputs.append(output)


class _Constant:
    """Gives the same whatever it is asked."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self._value
