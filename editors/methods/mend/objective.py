"""What MEND's editor is trained for: edits that hold, and nothing else changed (Mitchell et al. 2022a, sec. 3.3).

Groups of edits that have nothing to do with each other run in one batch: each row of it is computed with the changes of
its own group alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from editors.methods.mend.decompose import Factors
from editors.methods.mend.groups import Group
from editors.model.generation import end_tokens
from editors.model.loading import BaseModel
from editors.surgery.batch import Targets
from editors.surgery.tokens import target_ids

_ANY = 0
"""A token that is never looked at: the place before it counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Prompts that groups of edits should change, and prompts that they should leave alone, in one batch.

    Attributes:
        targets: The rows, in scope first. Out of scope, the places go on to what follows the answer; in scope too,
            where the base ends its answers.
        in_scope: How many rows are in scope.
        groups: The group that each row belongs to: [rows].
        unedited: What the base says out of scope, log-probabilities: [places out of scope, vocabulary].
    """

    targets: Targets
    in_scope: int
    groups: Tensor
    unedited: Tensor

    @classmethod
    def of(cls, base: BaseModel, model: PreTrainedModel, groups: Sequence[Group], end: int | None = None) -> Probes:
        """Put together the probes of groups; out of scope, the first token alone counts where no answer is known.

        Args:
            base: Whose tokens they are.
            model: The base, as a view.
            groups: At least one; each with a probe in scope, and one out of scope.
            end: The token that ends an answer, where the base writes one.

        Raises:
            EmptyTarget: A target has no token.
            ContextExceeded: A prompt is too long with its target.
        """
        last = () if end is None else (end,)
        inside = [_pair(base, prompt, target, last) for group in groups for prompt, target in group.in_scope]
        outside = [_pair(base, prompt, target, (_ANY,)) for group in groups for prompt, target in group.out_of_scope]
        numbers = chain(
            (number for number, group in enumerate(groups) for _ in group.in_scope),
            (number for number, group in enumerate(groups) for _ in group.out_of_scope),
        )
        kept = Targets.of(base, outside)
        with torch.no_grad():
            unedited = kept.batch.log_probabilities(model, kept.places)
        targets = Targets.of(base, [*inside, *outside])
        return cls(targets, len(inside), torch.tensor([*numbers], device=base.device), unedited)

    def losses(self, edited: PreTrainedModel) -> tuple[Tensor, Tensor]:
        """L_edit = -log p(target | prompt), a mean over rows, and L_loc = KL(base || edited), over places (eq. 4)."""
        targets = self.targets
        log_probabilities = targets.batch.log_probabilities(edited, targets.places)
        wished = targets.rows < self.in_scope
        likely = log_probabilities[wished].gather(1, targets.ids[wished, None]).sum() / self.in_scope
        return -likely, kl_div(log_probabilities[~wished], self.unedited, log_target=True, reduction="batchmean")

    @torch.no_grad()
    def outcome(self, edited: PreTrainedModel) -> tuple[list[bool], list[bool]]:
        """For each row in scope whether it succeeded, and for each out of scope whether it disagrees with the base.

        Teacher-forced: every token of the target is the likeliest; some likeliest token is no longer the base's.
        """
        targets = self.targets
        wished = targets.ids.clone()
        wished[targets.rows >= self.in_scope] = self.unedited.argmax(dim=1)
        likeliest = targets.batch.log_probabilities(edited, targets.places).argmax(dim=1)
        wrong = set(targets.rows[likeliest != wished].tolist())
        rows = range(len(targets.batch.ids))
        return [row not in wrong for row in rows[: self.in_scope]], [row in wrong for row in rows[self.in_scope :]]


@contextmanager
def in_force(
    model: PreTrainedModel, changes: Mapping[str, tuple[Tensor, Tensor]], owners: Mapping[str, Tensor], rows: Tensor
) -> Iterator[None]:
    """Let a view compute each row as if the changes of the row's own group were in its weights.

    Gradients flow into the changes.

    Args:
        model: A view; it carries hooks meanwhile.
        changes: Factors by module, u [out, tokens] and v [tokens, in].
        owners: The group of each of their tokens, by module: [tokens].
        rows: The group of each row of the batches that are run: [rows].
    """
    with ExitStack() as stack:
        for path, (u, v) in changes.items():
            own = (rows[:, None] == owners[path])[:, None].to(u.dtype)  # [rows, 1, tokens]
            handle = model.get_submodule(path).register_forward_hook(_Changed(u, v, own))
            stack.callback(handle.remove)
        yield


def owners_of(gradients: Mapping[str, Factors], groups: Sequence[Group]) -> dict[str, Tensor]:
    """The group of each token of the gradients of the groups' requests, one group after the other: [tokens]."""
    sizes = torch.tensor([len(group.requests) for group in groups])
    group_of = torch.repeat_interleave(torch.arange(len(groups)), sizes)
    return {path: group_of.to(own.edits.device)[own.edits] for path, own in gradients.items()}


@torch.no_grad()
def end_of_answers(base: BaseModel, model: PreTrainedModel, answers: Sequence[tuple[str, str]]) -> int | None:
    """The token with which the base ends its answers; None where it goes on after most of them.

    Args:
        base: Whose tokens they are.
        model: The base, as a view.
        answers: Prompts with the answers that the base gives them; there may be none.
    """
    ends = end_tokens(base.model)
    if not ends or not answers:
        return None
    targets = Targets.of(base, [_pair(base, prompt, answer, (_ANY,)) for prompt, answer in answers])
    last = targets.places[targets.rows.diff(append=targets.rows.new_tensor([-1])) != 0]
    said = Counter(targets.batch.log_probabilities(model, last).argmax(dim=1).tolist())
    likeliest = max(ends, key=said.__getitem__)
    return likeliest if 2 * said[likeliest] > len(answers) else None


class _Changed:
    """Adds x V^T U^T to what a linear module writes, of each row's own tokens alone."""

    def __init__(self, u: Tensor, v: Tensor, own: Tensor) -> None:
        self._u, self._v, self._own = u, v, own

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows = len(self._own)
        x = inputs[0].reshape(rows, -1, inputs[0].shape[-1])  # OPT's MLP sees rows and tokens as one
        changed = ((x.to(self._v.dtype) @ self._v.T) * self._own) @ self._u.T
        return output + changed.to(output.dtype).view_as(output)


def _pair(base: BaseModel, prompt: str, target: str | None, last: Sequence[int]) -> tuple[Any, list[int]]:
    """The ids of a prompt, and of its target with what follows it."""
    ids = base.tokenizer(prompt)["input_ids"]
    return ids, [*(target_ids(base.tokenizer, prompt, target) if target else ()), *last]
