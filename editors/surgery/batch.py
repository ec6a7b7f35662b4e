"""Sequences run together: padded on the right, where no token of a causal model looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from editors.errors import ContextExceeded
from editors.method import EditRequest
from editors.model.anatomy import anatomy_of
from editors.model.loading import BaseModel
from editors.surgery.tokens import target_ids
from editors.surgery.trace import narrowed


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Padded sequences.

    Attributes:
        ids: [rows, tokens].
        mask: [rows, tokens], 1 at tokens and 0 at padding.
    """

    ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, base: BaseModel, sequences: Sequence[Sequence[int]]) -> Batch:
        """Put sequences together, on the base's device.

        Raises:
            ContextExceeded: One of them is longer than the base's context.
        """
        width = max(map(len, sequences))
        if width > base.context_length:
            raise ContextExceeded(
                f"A prompt takes {width} tokens with its answer; the context of {base.name} holds "
                f"{base.context_length}.",
                hint="Shorten the prompt or its answer.",
            )
        ids = [[*sequence, *[0] * (width - len(sequence))] for sequence in sequences]
        mask = [[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
        return cls(torch.tensor(ids, device=base.device), torch.tensor(mask, device=base.device))

    def place(self, tokens: Sequence[int]) -> Tensor:
        """The places, as `surgery.trace` counts them, of one token in each row: [rows]."""
        rows, width = self.ids.shape
        return torch.arange(rows, device=self.ids.device) * width + torch.tensor(tokens, device=self.ids.device)

    @property
    def occupied(self) -> Tensor:
        """The places that hold a token, in order."""
        return self.mask.flatten().nonzero()[:, 0]

    def run(self, model: PreTrainedModel) -> None:
        """One forward pass for those who watch the layers; the head computes next to nothing."""
        self._logits(model, torch.zeros(1, dtype=torch.long, device=self.ids.device))

    def log_probabilities(self, model: PreTrainedModel, places: Tensor) -> Tensor:
        """What follows each place, [places, vocabulary], in nats and float32; gradients flow through it.

        Args:
            model: A view; its head carries a hook during the pass.
            places: Where.
        """
        return self._logits(model, places).float().log_softmax(dim=-1)

    def _logits(self, model: PreTrainedModel, places: Tensor) -> Tensor:
        """[places, vocabulary]."""
        with narrowed(model, anatomy_of(model.config).lm_head, places):
            logits: Tensor = model(input_ids=self.ids, attention_mask=self.mask, use_cache=False).logits
        return logits[0]


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Prompts, each followed by its target, for teacher forcing.

    Attributes:
        batch: Rows of prompt and target.
        places: Of the tokens before each of the targets' tokens: [target tokens].
        ids: The targets' tokens: [target tokens].
        rows: The row of each: [target tokens].
    """

    batch: Batch
    places: Tensor
    ids: Tensor
    rows: Tensor

    @classmethod
    def of(cls, base: BaseModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Targets:
        """Put together (prompt ids, target ids), both not empty.

        Raises:
            ContextExceeded: One of them is longer than the base's context.
        """
        batch = Batch.of(base, [[*prompt, *target] for prompt, target in pairs])
        width = batch.ids.shape[1]
        places = [
            row * width + len(prompt) - 1 + i for row, (prompt, target) in enumerate(pairs) for i in range(len(target))
        ]
        rows = [row for row, (_, target) in enumerate(pairs) for _ in target]
        ids = [token for _, target in pairs for token in target]
        return cls(batch, *(torch.tensor(numbers, device=base.device) for numbers in (places, ids, rows)))

    def mean_log_probabilities(self, log_probabilities: Tensor) -> Tensor:
        """Of a token of each row's target, [rows], from log-probabilities [target tokens, vocabulary] at `places`."""
        own = log_probabilities.gather(1, self.ids[:, None])[:, 0]
        sums = torch.zeros(len(self.batch.ids), device=own.device).index_add(0, self.rows, own)
        return sums / self.rows.bincount()


def targets_of(base: BaseModel, requests: Sequence[EditRequest]) -> Targets:
    """Each request's prompt, and then its paraphrases, with its target.

    Raises:
        EmptyTarget: A target has no token.
        ContextExceeded: A prompt is too long with its target.
    """
    texts = [(prompt, r.target) for r in requests for prompt in (r.prompt, *r.paraphrases)]
    tokenizer = base.tokenizer
    return Targets.of(base, [(tokenizer(prompt)["input_ids"], target_ids(tokenizer, prompt, t)) for prompt, t in texts])
