"""Subjects: a model, and a model with an edit memory beside it (Mitchell et al. 2022, sec. 3)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from editors.edit import EditDescriptor
from editors.errors import ContextExceeded
from editors.evaluation.subject import Scored, Subject
from editors.model.generation import batches, continue_greedily, end_tokens
from editors.serac.counterfactual import in_context

IMPOSSIBLE = -100.0
"""Log-probability, in nats, of a text that a verbatim answer does not say: far below any model's, and still finite."""

_SCORED_AT_ONCE = 2048
"""Tokens of a batch under teacher forcing, padding included: each takes logits over the whole vocabulary."""


class ModelSubject:
    """A causal language model that continues prompts, as a `Subject`.

    Args:
        model: In eval mode, with the tokens that end an answer in its generation config. It is only read.
        tokenizer: The model's.
        max_new_tokens: Most tokens of a generated answer.
        context_length: Most tokens that the model takes; unchecked when None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int,
        context_length: int | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._context_length = context_length

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """The answers, generated freely and greedily, stripped, in the order of the prompts.

        Raises:
            ContextExceeded: A prompt and its answer do not fit in the context.
        """
        ids = [self._prompt_ids(prompt) for prompt in prompts]
        for prompt, tokens in zip(prompts, ids, strict=True):
            self._refuse_overflow(prompt, len(tokens) + self._max_new_tokens)
        written = continue_greedily(self._model, ids, max_new_tokens=self._max_new_tokens)
        return [self._text(tokens) for tokens in written]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """How likely each target is after its prompt, a space between them: (prompt, target) pairs, in order.

        Raises:
            ContextExceeded: A prompt and its target do not fit in the context.
            ValueError: A target has no token.
        """
        scored: dict[int, Scored] = {}
        for i, log_probabilities, (before, target) in self._forced(pairs):
            *likeliest, after = log_probabilities.argmax(dim=-1).tolist()
            exact = tuple(found == token for found, token in zip(likeliest, target, strict=True))
            own = log_probabilities[:-1].gather(1, torch.tensor(target)[:, None])[:, 0].tolist()
            answered = all(exact) and after in end_tokens(self._model) and self._may_write(before, target)
            scored[i] = Scored(tuple(own), exact, self._text(target) if answered else None)
        return [scored[i] for i in range(len(pairs))]

    def distributions(self, pairs: Sequence[tuple[str, str]]) -> list[Tensor]:
        """For each pair, log-probabilities of every token in each place of the target: [target tokens, vocabulary].

        Raises:
            ContextExceeded: A prompt and its target do not fit in the context.
            ValueError: A target has no token.
        """
        found = {i: log_probabilities[:-1] for i, log_probabilities, _ in self._forced(pairs)}
        return [found[i] for i in range(len(pairs))]

    def _forced(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Tensor, tuple[list[int], list[int]]]]:
        """Index of a pair, log-probabilities [target tokens + 1, vocabulary] of what follows, ids of its two parts."""
        encoded = [self._encode(prompt, target) for prompt, target in pairs]
        for (prompt, _), (before, target) in zip(pairs, encoded, strict=True):
            self._refuse_overflow(prompt, len(before) + len(target))
        for batch in batches([len(before) + len(target) for before, target in encoded], _SCORED_AT_ONCE):
            first = min(len(encoded[i][0]) for i in batch) - 1
            logits = self._logits([encoded[i][0] + encoded[i][1] for i in batch], first)
            for row, i in zip(logits, batch, strict=True):
                before, target = encoded[i]
                start = len(before) - 1 - first  # each place predicts the token after it
                places = row[start : start + len(target) + 1]
                yield i, places.float().log_softmax(dim=-1).cpu(), encoded[i]

    def _logits(self, sequences: list[list[int]], first: int) -> Tensor:
        """[len(sequences), longest - first, vocabulary], of the places from `first` on.

        Padded on the right, where no token of a sequence looks.
        """
        width = max(map(len, sequences))
        ids = [[*sequence, *[0] * (width - len(sequence))] for sequence in sequences]
        mask = [[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
        device = self._model.device
        places = torch.arange(first, width, device=device)
        keep = {"logits_to_keep": places} if self._keeps_logits else {}
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                use_cache=False,
                **keep,
            )
        logits: Tensor = output.logits
        return logits if keep else logits[:, first:]

    @cached_property
    def _keeps_logits(self) -> bool:
        """Whether the model can be asked for the logits of some places alone, which most can."""
        return "logits_to_keep" in inspect.signature(self._model.forward).parameters

    def _may_write(self, before: list[int], target: list[int]) -> bool:
        """Whether `generate` would accept the prompt, and could write the target to its end."""
        room = self._context_length is None or len(before) + self._max_new_tokens <= self._context_length
        return room and len(target) <= self._max_new_tokens

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _encode(self, prompt: str, target: str) -> tuple[list[int], list[int]]:
        """Ids of the prompt as `generate` reads it, and of the target as it would be written after it.

        Both are encoded in one piece where the tokenizer cuts it at the prompt's end, so that a target begins as a
        word within a text does and never with the special tokens that begin a text.
        """
        text = target if not prompt or prompt[-1].isspace() else f" {target}"
        alone, together = self._plain_ids(prompt), self._plain_ids(prompt + text)
        ids = together[len(alone) :] if together[: len(alone)] == alone else self._plain_ids(text)
        if not target.strip() or not ids:
            raise ValueError(f"the target {target!r} after {prompt!r} has no token to score")
        return self._prompt_ids(prompt), ids

    def _prompt_ids(self, prompt: str) -> list[int]:
        return list(self._tokenizer(prompt)["input_ids"])

    def _plain_ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _refuse_overflow(self, prompt: str, tokens: int) -> None:
        if self._context_length is not None and tokens > self._context_length:
            raise ContextExceeded(
                f"The prompt {prompt[:60]!r} takes {tokens} tokens with its answer; the context holds "
                f"{self._context_length}.",
                hint="Shorten the prompt or its answer.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What an edit memory decided for a prompt.

    Attributes:
        beta: Of the edit considered best; None when none was considered.
        edit: The edit that answers; None leaves the prompt to the base.
        verbatim: Its answer word for word, where the edit asks for that and not for the counterfactual model.
    """

    beta: float | None = None
    edit: EditDescriptor | None = None
    verbatim: str | None = None

    def reading(self, prompt: str) -> str:
        """What is asked in the prompt's place: the edit and the prompt when an edit answers it."""
        return prompt if self.edit is None else in_context(self.edit, prompt)


Decide = Callable[[Sequence[str]], Sequence[Ruling]]
"""An edit memory's decisions, in the order of the prompts."""


class MemorySubject:
    """A model with an edit memory beside it: prompts in scope are answered by their edit, all others by the base.

    A verbatim answer has no distribution. Under teacher forcing it is certain of its own text (log-probability 0) and
    says nothing else (`IMPOSSIBLE`), as one token; in `distributions` every token is at `IMPOSSIBLE`.

    Args:
        base: Answers what no edit does.
        decide: Which edit, if any, answers each prompt.
        counterfactual: Reads the edit and answers; the base itself by default.
    """

    def __init__(self, base: Subject, decide: Decide, *, counterfactual: Subject | None = None) -> None:
        self.base = base
        self.decide = decide
        self.counterfactual = counterfactual or base

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """The answers, generated freely and greedily, stripped, in the order of the prompts."""
        rulings = self.decide(prompts)
        answers = [None if ruling.verbatim is None else ruling.verbatim.strip() for ruling in rulings]
        for subject, places in self._asked(rulings):
            found = subject.generate([rulings[place].reading(prompts[place]) for place in places])
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return [answer or "" for answer in answers]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """How likely each target is after its prompt: (prompt, target) pairs, in order."""
        rulings = self.decide([prompt for prompt, _ in pairs])
        scores = [said(ruling.verbatim or "", target) for ruling, (_, target) in zip(rulings, pairs, strict=True)]
        for subject, places in self._asked(rulings):
            found = subject.score([(rulings[place].reading(pairs[place][0]), pairs[place][1]) for place in places])
            for place, score in zip(places, found, strict=True):
                scores[place] = score
        return scores

    def distributions(self, pairs: Sequence[tuple[str, str]]) -> list[Tensor]:
        """For each pair, log-probabilities of every token in each place of the target: [target tokens, vocabulary]."""
        rulings = self.decide([prompt for prompt, _ in pairs])
        found = [
            (self.base if ruling.edit is None else self.counterfactual).distributions(
                [(ruling.reading(prompt), target)]
            )[0]
            for ruling, (prompt, target) in zip(rulings, pairs, strict=True)
        ]
        return [
            d if r.verbatim is None else torch.full_like(d, IMPOSSIBLE) for r, d in zip(rulings, found, strict=True)
        ]

    def _asked(self, rulings: Sequence[Ruling]) -> list[tuple[Subject, list[int]]]:
        """Who is asked for which answers: the base, and the counterfactual model; verbatim answers are nobody's."""
        places = [place for place, ruling in enumerate(rulings) if ruling.verbatim is None]
        if self.counterfactual is self.base:
            return [(self.base, places)] if places else []
        left = [place for place in places if rulings[place].edit is None]
        edited = [place for place in places if rulings[place].edit is not None]
        return [(who, mine) for who, mine in ((self.base, left), (self.counterfactual, edited)) if mine]


def said(verbatim: str, target: str) -> Scored:
    """A target under an answer that is given word for word."""
    same = verbatim.strip() == target.strip()
    return Scored((0.0 if same else IMPOSSIBLE,), (same,))
