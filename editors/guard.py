"""The guard: what a delta does to its base, and whether that can be let through.

It measures any method's delta in the same way, so a version is refused for what it does and not for how it was made.
Answers are generated freely, as a user meets them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from editors.delta import Delta, install
from editors.errors import DisablingEdit, IneffectiveEdit, NonFiniteEdit
from editors.evaluation.intervals import Share
from editors.evaluation.subject import Scored
from editors.evaluation.subjects import ModelSubject
from editors.method import EditRequest
from editors.model.loading import BaseModel
from editors.model.views import view
from editors.surgery.verify import CERTAIN, refuse_non_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    """What is let through.

    Attributes:
        largest_relative_norm: Of a change against its weight, ||change|| / ||weight||, at any site.
        largest_ineffective: Share of the requests whose target need not become likelier.
        largest_drawdown: Share of the probes whose answer may change.
        max_new_tokens: Of each answer.
    """

    largest_relative_norm: float = 1.0
    largest_ineffective: float = 0.0
    largest_drawdown: float = 0.5
    max_new_tokens: int = 24

    def __post_init__(self) -> None:
        if self.largest_relative_norm <= 0 or self.max_new_tokens < 1:
            raise ValueError("largest_relative_norm and max_new_tokens must be positive")
        if not (0 <= self.largest_ineffective <= 1 and 0 <= self.largest_drawdown <= 1):
            raise ValueError("largest_ineffective and largest_drawdown are shares, from 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What became of a request.

    Attributes:
        prompt: The request's.
        target: The request's.
        before: The target's tokens after the prompt, in the base.
        after: The same with the delta.
        text_before: What the base answers.
        text_after: What is answered with the delta.
    """

    prompt: str
    target: str
    before: Scored
    after: Scored
    text_before: str
    text_after: str

    @property
    def probability_before(self) -> float:
        """Of the whole target, in the base."""
        return math.exp(sum(self.before.log_probabilities))

    @property
    def probability_after(self) -> float:
        """Of the whole target, with the delta."""
        return math.exp(sum(self.after.log_probabilities))

    @property
    def is_effective(self) -> bool:
        """Whether the target became likelier, or was certain already."""
        return self.after.mean > self.before.mean or self.after.mean >= CERTAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """A probe whose answer changed, though no request is about it."""

    prompt: str
    text_before: str
    text_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardReport:
    """What a delta does.

    Attributes:
        relative_norms: ||change|| / ||weight|| by site.
        effects: One for each request, in order.
        disturbances: The probes whose answers changed.
        drawdown: Their share; None where there were no probes.
    """

    relative_norms: Mapping[str, float]
    effects: tuple[Effect, ...]
    disturbances: tuple[Disturbance, ...]
    drawdown: Share | None


def inspect(
    base: BaseModel, delta: Delta, requests: Sequence[EditRequest], probes: Sequence[str], config: GuardConfig
) -> GuardReport:
    """Measure what a delta does, before and after; the base is as it was.

    Args:
        base: What the delta was made for.
        delta: Any method's.
        requests: What it was made from, at least one.
        probes: Prompts that none of the requests is about; there may be none.
        config: How long answers may be.

    Raises:
        NonFiniteEdit: The delta holds an infinite or undefined number, or makes the model compute one.
        DeltaMismatch: It was made for another base model.
        ContextExceeded: A prompt does not fit in the context with its answer.
        ValueError: There are no requests, or a target has no token.
    """
    if not requests:
        raise ValueError("there is nothing to guard without requests")
    refuse_non_finite(delta)
    before = _Answers.of(base, view(base.model), requests, probes, config.max_new_tokens)
    after = _Answers.of(base, install(base, delta), requests, probes, config.max_new_tokens)
    if not all(math.isfinite(scored.mean) for scored in after.scores):
        raise NonFiniteEdit("The edited model computes undefined numbers.", hint="Make a smaller edit.")
    both = list(zip(probes, before.of_probes, after.of_probes, strict=True))
    changed = [Disturbance(prompt=p, text_before=was, text_after=now) for p, was, now in both if was != now]
    return GuardReport(
        relative_norms=delta.relative_norms(base),
        effects=tuple(_effects(requests, before, after)),
        disturbances=tuple(changed),
        drawdown=Share(len(changed), len(probes)) if probes else None,
    )


def refuse(report: GuardReport, config: GuardConfig) -> None:
    """Raise when a delta cannot be let through.

    Raises:
        IneffectiveEdit: Too many targets are no likelier than before.
        DisablingEdit: A weight changed too much, or too many probes are answered otherwise.
    """
    failed = [effect for effect in report.effects if not effect.is_effective]
    if len(failed) > config.largest_ineffective * len(report.effects):
        first = failed[0]
        raise IneffectiveEdit(
            f"{len(failed)} of {len(report.effects)} targets are no likelier with the edit, such as {first.target!r} "
            f"after {first.prompt!r}: {first.probability_before:.2g} before, {first.probability_after:.2g} after.",
            hint="Make fewer edits at once, or use another method or layer.",
        )
    site, norm = max(report.relative_norms.items(), key=lambda item: item[1])
    if norm > config.largest_relative_norm:
        raise DisablingEdit(
            f"The edit changes {site} by {norm:.2g} times its norm; {config.largest_relative_norm:.2g} is allowed.",
            hint="Make fewer edits at once, or smaller ones.",
        )
    if report.drawdown is not None and report.drawdown.value > config.largest_drawdown:
        first_changed = report.disturbances[0]
        raise DisablingEdit(
            f"The edit changes {report.drawdown.hits} of {report.drawdown.cases} unrelated answers, such as that to "
            f"{first_changed.prompt!r}: from {first_changed.text_before!r} to {first_changed.text_after!r}; a share of "
            f"{config.largest_drawdown:.2g} is allowed.",
            hint="Make fewer edits at once, or smaller ones.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """What one model says.

    Attributes:
        scores: Of the requests' targets.
        of_requests: Texts.
        of_probes: Texts.
    """

    scores: list[Scored]
    of_requests: list[str]
    of_probes: list[str]

    @classmethod
    def of(
        cls,
        base: BaseModel,
        model: PreTrainedModel,
        requests: Sequence[EditRequest],
        probes: Sequence[str],
        max_new_tokens: int,
    ) -> _Answers:
        subject = ModelSubject(model, base.tokenizer, max_new_tokens=max_new_tokens, context_length=base.context_length)
        texts = subject.generate([*(request.prompt for request in requests), *probes])
        return cls(
            scores=subject.score([(request.prompt, request.target) for request in requests]),
            of_requests=texts[: len(requests)],
            of_probes=texts[len(requests) :],
        )


def _effects(requests: Sequence[EditRequest], before: _Answers, after: _Answers) -> list[Effect]:
    return [
        Effect(
            prompt=request.prompt,
            target=request.target,
            before=before.scores[i],
            after=after.scores[i],
            text_before=before.of_requests[i],
            text_after=after.of_requests[i],
        )
        for i, request in enumerate(requests)
    ]
