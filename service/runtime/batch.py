"""The batch: sequences that a model continues together, each by a token in every step.

Iteration-level scheduling (Orca, Yu et al. 2022, sec. 3.1): a sequence joins when there is room and leaves when it is
done, whatever the others are at. Knows token ids only; not thread-safe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, TopPLogitsWarper

from service.domain.generations import Sampling
from service.runtime.rows import Rows

Draw = Callable[[Tensor], int]
"""Chooses a token by its logits, [vocabulary]."""

_GREEDY = 1e-5
"""Below this temperature the likeliest token is as good as certain, and the division would overflow."""


@dataclass(slots=True, eq=False, kw_only=True)
class Continuation:
    """A sequence to continue.

    Attributes:
        ids: Of the prompt, at least one.
        most: Tokens to write at most.
        draw: Chooses each token; None takes the likeliest.
        written: The ids so far.
    """

    ids: Sequence[int]
    most: int
    draw: Draw | None = None
    written: list[int] = field(default_factory=list)

    @property
    def room(self) -> int:
        """Tokens that prompt and answer take at most."""
        return len(self.ids) + self.most


One = TypeVar("One", bound=Continuation)


def draw_of(sampling: Sampling, seed: int) -> Draw | None:
    """How `sampling` chooses; None where it takes the likeliest token. The draws depend on the seed alone."""
    if sampling.temperature < _GREEDY:
        return None
    random = torch.Generator().manual_seed(seed)
    nucleus = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None

    def draw(logits: Tensor) -> int:
        scores = logits.float().cpu()
        likeliest = int(scores.argmax())
        if not scores[likeliest].isfinite():  # overflown: there is nothing to draw from, and the others must go on
            return likeliest
        scores = (scores - scores[likeliest]) / sampling.temperature
        if nucleus is not None:
            scores = nucleus(torch.empty(0), scores[None])[0]
        return int(torch.multinomial(scores.softmax(-1), 1, generator=random))

    return draw


class Batch(Generic[One]):
    """Continues sequences with a causal model.

    Args:
        model: It is only read.

    Attributes:
        running: Those that have been read and have not left.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._rows = Rows()
        self.running: list[One] = []
        takes = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in takes
        self._last_alone = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def join(self, joining: Sequence[One]) -> None:
        """Read prompts, at least one, in one pass, and write the first token after each."""
        lengths = [len(one.ids) for one in joining]
        width = max(lengths)
        ids = torch.tensor([[0] * (width - len(one.ids)) + list(one.ids) for one in joining])
        mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
        cache = DynamicCache()
        logits = self._logits(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        room = max(one.most - len(one.written) for one in (*self.running, *joining))
        self._rows.join(cache, lengths, room=room)
        self.running += joining
        _write(joining, logits)

    def step(self) -> None:
        """Write the next token of every sequence; there is at least one."""
        ids = torch.tensor([[one.written[-1]] for one in self.running])
        logits = self._logits(ids, self._rows.mask(), torch.tensor(self._rows.lengths)[:, None], self._rows)
        self._rows.advance()
        _write(self.running, logits)

    def leave(self, leaving: One) -> None:
        """Give up one's place. The last one takes it, so that no row lies idle."""
        place = self.running.index(leaving)
        self._rows.leave(place)
        last = self.running.pop()
        if last is not leaving:
            self.running[place] = last

    def _logits(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Of the last token of each row, [rows, vocabulary]."""
        device = self._model.device
        given: dict[str, Any] = {"position_ids": positions.to(device)} if self._takes_positions else {}
        with torch.inference_mode():
            output = self._model(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                past_key_values=cache,
                use_cache=True,
                **given,
                **self._last_alone,
            )
        logits: Tensor = output.logits[:, -1]
        return logits


def _write(continuations: Sequence[Continuation], logits: Tensor) -> None:
    likeliest = logits.argmax(-1).tolist()
    for place, one in enumerate(continuations):
        one.written.append(likeliest[place] if one.draw is None else one.draw(logits[place]))
