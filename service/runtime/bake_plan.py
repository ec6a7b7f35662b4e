"""What a bake comes to on this base. Everything that can be known beforehand to be wrong with it is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from editors.errors import EmptyTarget, UnknownArchitecture
from editors.evaluation.cases import Case
from editors.method import EditRequest, Method
from editors.model.loading import BaseModel
from editors.surgery.tokens import target_ids
from service.domain.bake_plans import BakePlan, LeftOut
from service.domain.bakes import BakeRequest, Gate
from service.domain.edits import Edit, normalise
from service.domain.versions import BakedEdit, Base
from service.errors import CannotEdit, FieldError, GateUnmeetable, Invalid, NotBakeable, PromptTooLong
from service.runtime.evaluation_plan import Suites, cases_of
from service.runtime.methods import TRAITS, config_of, fits, method_named, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What a method is given, and what its delta is judged by.

    Attributes:
        method: The weight editor.
        config: Its settings, of the method's own type.
        requests: One for each edit, in order.
        cases: One for each edit, and one for each question of the probe set.
    """

    method: Method[Any]
    config: Any
    requests: tuple[EditRequest, ...]
    cases: tuple[Case, ...]

    @property
    def probes(self) -> int:
        """How many prompts are judged."""
        return sum(len(case.probes) for case in self.cases)

    @property
    def passes(self) -> int:
        """About how many times the method runs the model."""
        return TRAITS[self.method.name].passes(self.config, len(self.requests))


def preparation_of(base: BaseModel, request: BakeRequest, edits: Sequence[Edit], suites: Suites) -> Preparation:
    """What a request comes to.

    Raises:
        UnknownMethod: No weight editor has that name.
        Invalid: A setting of the method is unknown or has a bad value.
        NotBakeable: The base's architecture cannot be edited.
        CannotEdit: A target has no token.
        PromptTooLong: A prompt and its answer do not fit in the model's context.
        GateUnmeetable: No version can meet the gate.
    """
    method = method_named(request.method)
    config = config_of(method, request.config)
    _refuse_base(base, config)
    preparation = Preparation(
        method=method,
        config=config,
        requests=tuple(edit_request(edit) for edit in edits),
        cases=_judged(edits, suites, request.seed),
    )
    _refuse_overlong(base, preparation.cases, request.gate)
    _refuse_gate(base, preparation.cases, request.gate)
    return preparation


def _judged(edits: Sequence[Edit], suites: Suites, seed: int) -> tuple[Case, ...]:
    """The cases of the edits; what one should leave alone and another answers is not asked out of scope."""
    answered = {normalise(prompt) for edit in edits for prompt, _ in edit.descriptor.answers}
    return tuple(
        replace(case, out_of_scope=tuple(o for o in case.out_of_scope if normalise(o.prompt) not in answered))
        for case in cases_of(edits, suites, apart_from=edits, seed=seed)
    )


def edit_request(edit: Edit) -> EditRequest:
    """An edit as weight editors take it: a question with its examples, or a claim as a true-or-false question."""
    (prompt, target), *examples = edit.descriptor.answers
    return EditRequest(
        prompt=prompt,
        target=target,
        subject=edit.descriptor.subject,
        paraphrases=tuple(example for example, _ in examples),
    )


def plan_of(
    preparation: Preparation, request: BakeRequest, base: Base, edits: Sequence[Edit], left_out: Sequence[LeftOut]
) -> BakePlan:
    """A preparation as the caller sees it."""
    fitting = fits(len(edits))
    return BakePlan(
        request=replace(request, config=plain(preparation.config)),
        base=base,
        edits=tuple(BakedEdit(id=edit.id, revision=edit.revision) for edit in edits),
        left_out=tuple(left_out),
        advised=next(fit.method for fit in fitting if fit.fits),
        fits=fitting,
        passes=preparation.passes,
        probes=preparation.probes,
    )


def _refuse_base(base: BaseModel, config: Any) -> None:
    try:
        _ = base.anatomy
    except UnknownArchitecture as error:
        raise NotBakeable(error.detail, hint=error.hint) from error
    if hasattr(config, "layer_of"):
        try:
            config.layer_of(base.model.config)
        except ValueError as error:
            raise Invalid(f"{error}.", errors=(FieldError("/config/layer", str(error)),)) from error


def _refuse_overlong(base: BaseModel, cases: Sequence[Case], gate: Gate) -> None:
    for case in cases:
        for probe in case.probes:
            tokens = len(base.tokenizer(probe.prompt)["input_ids"]) + gate.max_new_tokens
            if tokens > base.context_length:
                raise PromptTooLong(
                    f"The prompt {probe.prompt[:60]!r} of {case.id} takes {tokens} tokens with the "
                    f"{gate.max_new_tokens} of an answer; the context of {base.name} holds {base.context_length}.",
                    hint="Lower the gate's max_new_tokens, or leave the edit out.",
                )


def _refuse_gate(base: BaseModel, cases: Sequence[Case], gate: Gate) -> None:
    """A target that takes more tokens than an answer may have is never answered."""
    wanted = [(case.id, probe) for case in cases for probe in case.in_scope]
    try:
        lengths = [len(target_ids(base.tokenizer, probe.prompt, probe.target)) for _, probe in wanted]
    except EmptyTarget as error:
        raise CannotEdit(error.detail, hint=error.hint) from error
    late = [name for (name, _), length in zip(wanted, lengths, strict=True) if length > gate.max_new_tokens]
    most = 1 - len(late) / len(wanted)
    if most < gate.edit_success:
        raise GateUnmeetable(
            f"No answer of {gate.max_new_tokens} tokens can hold the target of {late[0]}, so edit_success is "
            f"{most:.3g} at most; {gate.edit_success:.3g} is asked for.",
            errors=(FieldError("/gate/max_new_tokens", f"{max(lengths)} or more are needed"),),
        )
