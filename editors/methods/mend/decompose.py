"""The fine-tuning gradient in its rank-one parts, sum_t delta_t u_t^T (Mitchell et al. 2022a, sec. 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from editors.method import EditRequest
from editors.model.loading import BaseModel
from editors.surgery.batch import Targets
from editors.surgery.tokens import target_ids
from editors.surgery.trace import added, captured

_EDITS_PER_PASS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The gradient of a loss for one weight, token by token: its sum over t of delta_t u_t^T is the whole, [out, in].

    Attributes:
        u: What the module reads: [tokens, in].
        delta: The loss's gradient for what it writes: [tokens, out].
        edits: Which edit each token belongs to: [tokens].
    """

    u: Tensor
    delta: Tensor
    edits: Tensor

    def of_edits(self, first: int, last: int) -> Factors:
        """The tokens of the edits [first, last)."""
        own = (self.edits >= first) & (self.edits < last)
        return Factors(self.u[own], self.delta[own], self.edits[own])


def decompose(
    model: PreTrainedModel, sites: Mapping[str, tuple[int, int]], places: Tensor, loss: Callable[[], Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """What each site reads, u [places, in], and the gradient for what it writes, delta [places, out].

    Both in float32 at least.

    Args:
        model: A view whose parameters need no gradient; hooks stand on it during the pass.
        sites: Paths of linear modules, with their (out, in).
        places: The tokens, as `surgery.trace` counts them; no others may bear on the loss.
        loss: Runs the model, and gives the loss.
    """
    dtype = torch.promote_types(model.dtype, torch.float32)
    nothing = {
        path: torch.zeros(len(places), n_out, dtype=dtype, device=model.device, requires_grad=True)
        for path, (n_out, _) in sites.items()
    }
    with torch.enable_grad(), ExitStack() as stack:
        seen = {path: stack.enter_context(captured(model, path, places)) for path in sites}
        for path, zeros in nothing.items():  # what is added to an output has the output's gradient
            stack.enter_context(added(model, path, places, zeros))
        deltas = torch.autograd.grad(loss(), list(nothing.values()))
    return {path: (seen[path].input.detach().to(dtype), delta) for path, delta in zip(sites, deltas, strict=True)}


def edit_gradients(
    base: BaseModel,
    model: PreTrainedModel,
    sites: Mapping[str, tuple[int, int]],
    requests: Sequence[EditRequest],
    *,
    end: int | None = None,
) -> dict[str, Factors]:
    """The gradient of the sum over requests of -log p(target | prompt), with the end of the answer where it has one.

    Tokens that do not bear on the loss have no part in it, and would only mislead the editor: they are left out.

    Args:
        base: Whose tokens they are.
        model: A view of it, as `decompose` takes it.
        sites: As `decompose` takes them.
        requests: At least one; paraphrases are not used.
        end: A token that follows every target.

    Raises:
        EmptyTarget: A target has no token.
        ContextExceeded: A prompt is too long with its target.
    """
    parts: dict[str, list[Factors]] = {path: [] for path in sites}
    for number, targets in enumerate(passes_of(base, requests, end=end)):
        for path, factors in _gradients(model, sites, targets, number * _EDITS_PER_PASS).items():
            parts[path].append(factors)
    return {path: _together(own) for path, own in parts.items()}


def passes_of(base: BaseModel, requests: Sequence[EditRequest], *, end: int | None = None) -> list[Targets]:
    """The requests' prompts with their targets, as many together as are run together.

    Raises:
        EmptyTarget: A target has no token.
        ContextExceeded: A prompt is too long with its target.
    """
    tokenizer, last = base.tokenizer, () if end is None else (end,)
    pairs = [(tokenizer(r.prompt)["input_ids"], [*target_ids(tokenizer, r.prompt, r.target), *last]) for r in requests]
    return [Targets.of(base, pairs[i : i + _EDITS_PER_PASS]) for i in range(0, len(pairs), _EDITS_PER_PASS)]


def _gradients(
    model: PreTrainedModel, sites: Mapping[str, tuple[int, int]], targets: Targets, first: int
) -> dict[str, Factors]:
    places = targets.batch.occupied
    edits = first + places // targets.batch.ids.shape[1]

    def loss() -> Tensor:
        log_probabilities = targets.batch.log_probabilities(model, targets.places)
        return -log_probabilities.gather(1, targets.ids[:, None]).sum()

    found = {}
    for path, (u, delta) in decompose(model, sites, places, loss).items():
        bearing = (delta != 0).any(dim=1)
        found[path] = Factors(u[bearing], delta[bearing], edits[bearing])
    return found


def _together(parts: Sequence[Factors]) -> Factors:
    return Factors(
        torch.cat([part.u for part in parts]),
        torch.cat([part.delta for part in parts]),
        torch.cat([part.edits for part in parts]),
    )
