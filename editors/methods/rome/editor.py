"""ROME (Meng et al. 2022): each fact is located at its subject, and written into one MLP matrix in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from editors.delta import Delta, compose, install
from editors.errors import SubjectNotFound
from editors.method import EditRequest, origin
from editors.methods.rome.config import RomeConfig
from editors.methods.rome.k_star import associate
from editors.methods.rome.update import direction, rank_one
from editors.methods.rome.v_star import Objective, Reach, v_star
from editors.model.generation import end_tokens
from editors.model.loading import BaseModel
from editors.surgery import covariance
from editors.surgery.batch import Targets
from editors.surgery.quick import Quick
from editors.surgery.room import within_memory
from editors.surgery.sampling import sampled_texts
from editors.surgery.tokens import Lookup, find_subject, locate, target_ids
from editors.surgery.verify import refuse_non_finite, verify

_ROUNDS = 4
"""Most times that a request's change is computed."""


class Rome:
    """One rank-one change for each request, each computed on top of the ones before it.

    The changes share a matrix, and a later one can undo an earlier one: whose answer is lost so is computed again, on
    top of all others.
    """

    name = "rome"
    config = RomeConfig
    tolerance = 1e-4

    @within_memory
    def prepare(
        self, base: BaseModel, requests: Sequence[EditRequest], config: RomeConfig, *, assets: Sequence[Path] = ()
    ) -> Delta:
        """Compute the delta; see `editors.method.Method.prepare`.

        Args:
            base: What to edit.
            requests: At least one; paraphrases are not used.
            config: Settings.
            assets: Folders, one of which holds the key covariance of the edited module (`errata stats`).

        Raises:
            UnknownArchitecture: Weight editing does not know the model.
            SubjectNotFound: A subject is not in its prompt, or none was given and none can be found.
            EmptyTarget: A target has no token.
            ContextExceeded: A prompt is too long with its target and a prefix.
            StatisticsNotFound: No folder holds the covariance of this model at this layer.
            NonFiniteEdit: An edit came out infinite or undefined.
            IneffectiveEdit: With all edits in place, a target is no likelier than before.
            EditFailed: Memory ran out.
            ValueError: There are no requests, or the model has no such layer, or no token that ends an answer where one
                is to be trained.
        """
        if not requests:
            raise ValueError("there is nothing to edit without requests")
        layer = config.layer_of(base.model.config)
        path = base.anatomy.within(layer, base.anatomy.mlp_out)
        requests = [_with_subject(request) for request in requests]
        factor = covariance.find(base, path, assets).factor(config.ridge)
        quick = Quick(base, at_once=True)
        prefixes = ["", *(f"{text}. " for text in sampled_texts(base, config.prefixes, seed=config.seed, quick=quick))]
        changes: dict[int, Delta] = {}
        wanting: Sequence[int] = range(len(requests))
        for _ in range(_ROUNDS):
            for i in wanting:
                others = _sum(base, [change for other, change in changes.items() if other != i])
                edited = quick(install(base, others).requires_grad_(requires_grad=False))
                changes[i] = _edit(base, edited, layer, requests[i], prefixes, factor, config)
                refuse_non_finite(changes[i])
            delta = _sum(base, list(changes.values()))
            if len(requests) == 1 or not (wanting := _unsaid(base, delta, requests, config)):
                break
        verify(base, delta, requests)
        return replace(delta, origins=(origin(self.name, config, requests),))


def _sum(base: BaseModel, changes: Sequence[Delta]) -> Delta:
    return compose([Delta(base=base.fingerprint, changes={}), *changes])


@torch.no_grad()
def _unsaid(base: BaseModel, delta: Delta, requests: Sequence[EditRequest], config: RomeConfig) -> list[int]:
    """Indices of the requests of whose target a token is not the likeliest after their prompt."""
    prompts = [base.tokenizer(request.prompt)["input_ids"] for request in requests]
    targets = Targets.of(base, [(ids, _target(base, r, config)) for ids, r in zip(prompts, requests, strict=True)])
    likeliest = targets.batch.log_probabilities(install(base, delta), targets.places).argmax(dim=-1)
    return sorted(set(targets.rows[likeliest != targets.ids].tolist()))


def _edit(
    base: BaseModel,
    edited: PreTrainedModel,
    layer: int,
    request: EditRequest,
    prefixes: Sequence[str],
    factor: Tensor,
    config: RomeConfig,
) -> Delta:
    """One request's change to the model as it is with the edits so far."""
    subject, path = request.subject or "", base.anatomy.within(layer, base.anatomy.mlp_out)
    lookups = [locate(base.tokenizer, prefix + request.prompt, subject) for prefix in prefixes]
    essence = locate(base.tokenizer, f"{subject} is a", subject)  # what it is should stay
    target = _target(base, request, config)
    now = associate(base, edited, path, [lookups, *_other_forms(base, subject, prefixes, lookups, config)])
    k, v = (now.k_bare, now.v_bare) if config.original_keys else (now.k_star, now.v)
    along = direction(factor, now.k_star)
    reach = Reach(along, k) if config.whole_change else None
    objectives = [Objective.of(base, edited, layer, some, target, essence, reach) for some in _turns(lookups, config)]
    residual = v_star(objectives, v, config) - v
    return Delta(base=base.fingerprint, changes={f"{path}.weight": rank_one(along, k, residual)})


def _turns(lookups: Sequence[Lookup], config: RomeConfig) -> list[list[Lookup]]:
    """What the steps of v* score in turn: the bare prompt, and a share of the others."""
    bare, *others = lookups
    turns = 1 if config.prompts_per_step is None else max(1, math.ceil(len(others) / (config.prompts_per_step - 1)))
    return [[bare, *others[turn::turns]] for turn in range(turns)]


def _other_forms(
    base: BaseModel, subject: str, prefixes: Sequence[str], lookups: Sequence[Lookup], config: RomeConfig
) -> list[list[Lookup]]:
    """The subject by itself where it ends in another token than in the prompt, by that token."""
    known = {lookup.ids[lookup.token] for lookup in lookups}
    forms: dict[int, list[Lookup]] = {}
    for prefix in prefixes if config.all_forms else ():
        alone = locate(base.tokenizer, prefix + subject, subject)
        if alone.ids[alone.token] not in known:
            forms.setdefault(alone.ids[alone.token], []).append(alone)
    return list(forms.values())


def _target(base: BaseModel, request: EditRequest, config: RomeConfig) -> list[int]:
    """The tokens that should follow the prompt, with the one that ends an answer where it is trained."""
    ends = end_tokens(base.model)
    if config.ends_answer and not ends:
        raise ValueError(f"ends_answer is set, and {base.name} has no token that ends an answer")
    target = target_ids(base.tokenizer, request.prompt, request.target)
    return [*target, *ends[:1]] if config.ends_answer else target


def _with_subject(request: EditRequest) -> EditRequest:
    """The request with its subject, found where it was not given, and in any case in the prompt."""
    subject = request.subject or find_subject(request.prompt)
    if subject not in request.prompt:
        raise SubjectNotFound(
            f"The subject {subject!r} is not in the prompt {request.prompt!r}.",
            hint="Write it as the prompt does, letter by letter.",
        )
    return replace(request, subject=subject)
