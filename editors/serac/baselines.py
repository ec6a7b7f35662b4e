"""The two baselines of SERAC's table that keep edits beside the model (Mitchell et al. 2022, sec. 5): LU and RP.

LU, the lookup cache, answers from hidden states alone: it knows neither scope nor a counterfactual model. RP, retrieve
and prompt, has SERAC's scope and lets the base read the edit. Both are measured as SERAC is, as a `MemorySubject`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from editors.edit import Claim, EditDescriptor, QuestionAnswer, Statement
from editors.evaluation.subject import Subject
from editors.evaluation.subjects import Decide, MemorySubject, Ruling
from editors.model.generation import batches

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""From n texts to float32 [n, width]."""

_TOKENS_AT_ONCE = 4096


class HiddenStates:
    """Mean over a text's tokens of what the last layer of the base holds: the keys of LU.

    Args:
        model: A causal language model in eval mode. It is only read.
        tokenizer: The model's.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Float32 [len(texts), hidden]; other texts of the call change a row by rounding alone."""
        ids = [list(self._tokenizer(text)["input_ids"]) for text in texts]
        found = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        for batch in batches([len(own) for own in ids], _TOKENS_AT_ONCE):
            found[batch] = self._means([ids[i] for i in batch])
        return found

    def _means(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """[len(rows), hidden]; padded on the right, where no token of a row looks."""
        width = max(map(len, rows))
        device = self._model.device
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        with torch.inference_mode():
            output = self._model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        hidden = output.last_hidden_state.float()  # [b, width, hidden]
        means = (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        array: NDArray[np.float32] = means.cpu().numpy()
        return array


class LookupCache:
    """LU: an input whose key is near enough to an edit's gets that edit's answer, word for word.

    An edit without a question that it answers, as one of mood, cannot be cached and is left out.

    Args:
        edits: What to hold.
        embed: Gives the keys, as `HiddenStates` does.
        radius: L2 distance below which the nearest edit answers: the paper's delta. It depends on the base, so it is
            chosen on other data, see `best_radius`; the paper's 2.75 and 4 belong to T5-large and BERT-base.
    """

    def __init__(self, edits: Sequence[EditDescriptor], embed: Embed, radius: float) -> None:
        cached = [(edit, *said) for edit in edits if (said := question_and_answer(edit)) is not None]
        self._edits = [edit for edit, _, _ in cached]
        self._answers = [answer for _, _, answer in cached]
        self._embed = embed
        self._keys = torch.from_numpy(embed([question for _, question, _ in cached])) if cached else None
        self._radius = radius

    def distances(self, prompts: Sequence[str]) -> tuple[NDArray[np.float64], list[EditDescriptor]]:
        """L2 distance of each prompt to its nearest key, [len(prompts)], and the edit of that key.

        Raises:
            ValueError: Nothing is cached, so nothing is near.
        """
        if self._keys is None:
            raise ValueError("an empty cache has no distances")
        queries = torch.from_numpy(self._embed(prompts))
        every = torch.cdist(queries, self._keys, compute_mode="donot_use_mm_for_euclid_dist")  # [prompts, edits]
        near = every.min(dim=1)
        return near.values.double().numpy(), [self._edits[i] for i in near.indices.tolist()]

    def decide(self, prompts: Sequence[str]) -> list[Ruling]:
        """The decisions of this memory: the nearest edit's answer below the radius, and else the base."""
        if self._keys is None or not prompts:
            return [Ruling() for _ in prompts]
        answers = dict(zip(self._edits, self._answers, strict=True))
        return [
            Ruling(edit=edit, verbatim=answers[edit]) if distance < self._radius else Ruling()
            for distance, edit in zip(*self.distances(prompts), strict=True)
        ]


def question_and_answer(edit: EditDescriptor) -> tuple[str, str] | None:
    """The question whose answer an edit gives; None for an edit of mood, which gives none."""
    match edit:
        case QuestionAnswer(prompt, target):
            return prompt, target
        case Claim(claim, label):
            return f"True or false: {claim}", str(label)
        case Statement(statement):
            return f"True or false: {statement}", str(True)
    return None


def best_radius(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """The smallest radius with the best of LU's trade: share of `inside` below it, less the share of `outside`.

    Args:
        inside: Distances of in-scope inputs to their nearest key, [n].
        outside: Those of out-of-scope inputs, [m].

    Returns:
        A radius midway between two distances; 0, below which nothing is, where none gains.
    """
    points = np.unique(np.concatenate([inside, outside]))
    radii = np.concatenate([[0.0], (points[:-1] + points[1:]) / 2, [np.nextafter(points[-1], np.inf)]])
    gains = _share_below(inside, radii) - _share_below(outside, radii)
    return float(radii[gains.argmax()])


def lookup(base: Subject, cache: LookupCache) -> MemorySubject:
    """LU on a base."""
    return MemorySubject(base, cache.decide)


def retrieve_and_prompt(base: Subject, decide: Decide) -> MemorySubject:
    """RP: SERAC's decisions, with the base reading the edit in its context, also where the edit would answer verbatim.

    Args:
        base: Answers, with and without an edit in its context.
        decide: SERAC's retrieval and scope classifier.
    """
    return MemorySubject(base, lambda prompts: [replace(ruling, verbatim=None) for ruling in decide(prompts)])


def _share_below(distances: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    below: NDArray[np.float64] = np.searchsorted(np.sort(distances), radii, side="left") / len(distances)
    return below
