"""What MEND's editor is trained for: edits that hold, and nothing else changed (Mitchell et al. 2022a, sec. 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from editors.model.loading import BaseModel
from editors.surgery.batch import Targets
from editors.surgery.tokens import target_ids
from editors.surgery.trace import reweighted

_ANY = 0
"""A token that is never looked at: the place before it counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Prompts that a group of edits should change, and prompts that it should leave alone, in one batch.

    Attributes:
        targets: The rows, in scope first. Out of scope, the places go on to what follows the answer.
        in_scope: How many rows are in scope.
        unedited: What the base says out of scope, log-probabilities: [places out of scope, vocabulary].
    """

    targets: Targets
    in_scope: int
    unedited: Tensor

    @classmethod
    def of(
        cls,
        base: BaseModel,
        model: PreTrainedModel,
        in_scope: Sequence[tuple[str, str]],
        out_of_scope: Sequence[tuple[str, str | None]],
    ) -> Probes:
        """Put together (prompt, target) pairs; out of scope, the first token alone counts where no answer is known.

        Args:
            base: Whose tokens they are.
            model: The base, as a view.
            in_scope: At least one.
            out_of_scope: At least one.

        Raises:
            EmptyTarget: A target has no token.
            ContextExceeded: A prompt is too long with its target.
        """
        tokenizer = base.tokenizer
        pairs = [(tokenizer(prompt)["input_ids"], target_ids(tokenizer, prompt, t)) for prompt, t in in_scope]
        pairs += [
            (tokenizer(prompt)["input_ids"], [*(target_ids(tokenizer, prompt, t) if t else ()), _ANY])
            for prompt, t in out_of_scope
        ]
        kept = Targets.of(base, pairs[len(in_scope) :])
        with torch.no_grad():
            unedited = kept.batch.log_probabilities(model, kept.places)
        return cls(Targets.of(base, pairs), len(in_scope), unedited)

    def losses(self, edited: PreTrainedModel) -> tuple[Tensor, Tensor]:
        """L_edit = -log p(target | prompt), a mean over tokens and rows, and L_loc = KL(base || edited) (eq. 4)."""
        log_probabilities = self.targets.batch.log_probabilities(edited, self.targets.places)
        likely = self.targets.mean_log_probabilities(log_probabilities)[: self.in_scope]
        kept = log_probabilities[self.targets.rows >= self.in_scope]
        return -likely.mean(), kl_div(kept, self.unedited, log_target=True, reduction="batchmean")

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
def in_force(model: PreTrainedModel, factors: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Let a view compute as if changes, as factors by module, were in its weights; gradients flow into them."""
    with ExitStack() as stack:
        for path, (u, v) in factors.items():
            stack.enter_context(reweighted(model, path, u @ v))
        yield
