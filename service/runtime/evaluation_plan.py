"""What an evaluation asks: the cases of the request, of a suite, or those that the edits in force make.

Everything that can be wrong with a request is found here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from editors.evaluation.cases import EDIT, PARAPHRASE, Case, InScope, OutOfScope, Replies
from editors.evaluation.metrics import METRICS
from editors.evaluation.records import GENERATED
from service.domain.edits import Descriptor, Edit, normalise
from service.domain.evaluations import BASE, MEMORY, SERAC, EvaluationCase, EvaluationRequest, Probe
from service.domain.versions import VERSION_NAME
from service.errors import (
    EditNotFound,
    FieldError,
    Invalid,
    MetricUnavailable,
    NothingToEvaluate,
    UnknownMetric,
    UnknownSubject,
    UnknownSuite,
    WeightsElsewhere,
)
from service.runtime.descriptors import edit_descriptor, kept_descriptor

Suites = Mapping[str, Callable[[], Sequence[Case]]]
"""Suites by name; each is made when asked for."""

PROBE_SET = "probe set"
"""The form of the probes that ask whether the edits in force left unrelated facts alone."""
PROBE_SET_SIZE = 200
PROBE_SET_SUITE = "facts"

_AGAINST = (MEMORY, BASE, SERAC)
_EVERY_EDIT = ("active",)


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What to ask, and what for.

    Attributes:
        cases: With their probes.
        edits: Of the cases, with all that the operator says of their scope, by the case's id.
        metrics: Names of those to compute.
        sizes: How many edits to hold at once, run by run; one run where the edits are those in force or none.
    """

    cases: tuple[Case, ...]
    edits: Mapping[str, Descriptor]
    metrics: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def probes(self) -> int:
        """How many are judged in all runs together."""
        return len(self.sizes) * sum(len(case.probes) for case in self.cases)


_Asked = tuple[tuple[Case, ...], Mapping[str, Descriptor]]
"""Cases, and their edits by the case's id."""


def plan_of(request: EvaluationRequest, suites: Suites, in_force: Sequence[Edit]) -> EvaluationPlan:
    """What a request comes to with these suites and edits.

    Raises:
        UnknownSuite, UnknownMetric, UnknownSubject: Nothing has that name.
        MetricUnavailable: The cases lack a field that a metric asked for needs.
        NothingToEvaluate: There is no probe, or no edit for the scratch memory to hold.
        EditNotFound: An edit named is not in force.
        Invalid: Two cases have one id, or an in-scope probe has no target.
    """
    if request.against not in _AGAINST and not re.fullmatch(VERSION_NAME, request.against):
        raise UnknownSubject(
            f"Nothing called {request.against!r} can be evaluated.",
            hint=f"Ask for {', '.join(_AGAINST)}, or a version such as v1.",
        )
    if request.suite is not None:
        cases, edits = _of_suite(request, request.suite, suites)
    elif request.edits:
        cases, edits = _of_edits(request, suites, in_force)
    else:
        cases, edits = _inline(request.cases)
    if not any(case.probes for case in cases):
        raise NothingToEvaluate("There is no probe to judge.")
    if request.against == SERAC and not edits:
        raise NothingToEvaluate(
            "None of the cases has an edit for the scratch memory to hold.",
            hint="Give the cases edits, or evaluate against memory or base.",
        )
    sizes = {min(size, len(edits)) for size in request.edits_at_once} if request.against == SERAC else {1}
    return EvaluationPlan(cases, edits, _metrics(request.metrics, cases), tuple(sorted(sizes)))


def answers_alone(plan: EvaluationPlan, asked: Sequence[str]) -> EvaluationPlan:
    """A plan without what needs the weights: the metrics that exist under teacher forcing alone.

    Raises:
        WeightsElsewhere: One of those was asked for by name, or there is no other.
    """
    left = tuple(name for name in plan.metrics if GENERATED in METRICS[name].modes)
    refused = [name for name in plan.metrics if name not in left and (name in asked or not left)]
    if refused:
        raise WeightsElsewhere(
            f"{refused[0]} is measured under teacher forcing, which needs the base's weights, and they are elsewhere.",
            hint="Leave it out, or ask a service that loads the base itself.",
        )
    return replace(plan, metrics=left)


def _metrics(asked: Sequence[str], cases: Sequence[Case]) -> tuple[str, ...]:
    """Those asked for, or else all that the cases have the fields for."""
    for name in asked:
        if name not in METRICS:
            raise UnknownMetric(f"There is no metric {name!r}.", hint=f"The metrics: {', '.join(METRICS)}.")
        if lacking := METRICS[name].lacking(cases):
            raise MetricUnavailable(
                f"{name} cannot be measured: {lacking}", hint="Add that to the cases, or leave the metric out."
            )
    return tuple(dict.fromkeys(asked)) or tuple(name for name, m in METRICS.items() if m.lacking(cases) is None)


def _of_suite(request: EvaluationRequest, name: str, suites: Suites) -> _Asked:
    if name not in suites:
        raise UnknownSuite(f"There is no suite {name!r}.", hint=f"The suites here: {', '.join(suites) or 'none'}.")
    cases = suites[name]()
    if request.limit is not None and request.limit < len(cases):
        cases = Random(request.seed).sample(list(cases), request.limit)
    return tuple(cases), {case.id: kept_descriptor(case.edit) for case in cases if case.edit is not None}


def _inline(given: tuple[EvaluationCase, ...]) -> _Asked:
    ((most_common, times),) = Counter(case.id for case in given).most_common(1)
    if times > 1:
        raise Invalid(f"{times} cases have the id {most_common!r}.", hint="Give each case an id of its own.")
    cases = tuple(_case(case, f"/cases/{place}") for place, case in enumerate(given))
    return cases, {case.id: case.edit for case in given if case.edit is not None}


def _case(given: EvaluationCase, pointer: str) -> Case:
    edit = None if given.edit is None else edit_descriptor(given.edit)
    own = None if given.edit is None else given.edit.prompt
    return Case(
        id=given.id,
        edit=edit,
        in_scope=tuple(
            _in_scope(probe, own, f"{pointer}/in_scope/{place}") for place, probe in enumerate(given.in_scope)
        ),
        out_of_scope=tuple(
            OutOfScope(probe.prompt, probe.form or "other", probe.target) for probe in given.out_of_scope
        ),
        subject=None if given.edit is None else given.edit.subject,
        previous=given.previous,
        replies=None if given.replies is None else Replies(given.replies.wished, given.replies.opposite),
    )


def _in_scope(probe: Probe, edit_prompt: str | None, pointer: str) -> InScope:
    if not probe.target:
        raise Invalid(
            f"The in-scope probe {probe.prompt!r} has no target.",
            hint="Say what the right answer is once the edit holds.",
            errors=(FieldError(f"{pointer}/target", "needed in scope"),),
        )
    return InScope(probe.prompt, probe.target, probe.form or (EDIT if probe.prompt == edit_prompt else PARAPHRASE))


def _of_edits(request: EvaluationRequest, suites: Suites, in_force: Sequence[Edit]) -> _Asked:
    by_id = {edit.id: edit for edit in in_force}
    if missing := [name for name in request.edits if name not in by_id and request.edits != _EVERY_EDIT]:
        raise EditNotFound(f"No edit {missing[0]} is in force.")
    chosen = in_force if request.edits == _EVERY_EDIT else [by_id[name] for name in dict.fromkeys(request.edits)]
    if not chosen:
        raise NothingToEvaluate("No edit is in force.")
    cases = cases_of(chosen, suites, apart_from=in_force, seed=request.seed)
    return cases, {edit.id: edit.descriptor for edit in chosen}


def cases_of(edits: Sequence[Edit], suites: Suites, *, apart_from: Sequence[Edit], seed: int) -> tuple[Case, ...]:
    """What edits should answer and leave alone, by their own words, and a probe set of unrelated questions.

    Args:
        edits: One case for each.
        suites: Where the probe set comes from.
        apart_from: What the probe set must not be about.
        seed: Draws the probe set.
    """
    cases = [
        Case(
            id=edit.id,
            edit=edit_descriptor(edit.descriptor),
            in_scope=tuple(_judged(edit.descriptor)),
            out_of_scope=tuple(OutOfScope(prompt, "example") for prompt in edit.descriptor.scope.out_of_scope),
            subject=edit.descriptor.subject,
        )
        for edit in edits
    ]
    probes = _probe_set(suites, apart_from, Random(seed))
    # A case for each: they are independent, and the intervals of figures are those over cases.
    cases += [
        Case(id=f"probe {place}", out_of_scope=(OutOfScope(prompt, PROBE_SET),))
        for place, prompt in enumerate(probes, start=1)
    ]
    return tuple(cases)


def _judged(descriptor: Descriptor) -> Iterator[InScope]:
    for place, (prompt, target) in enumerate(descriptor.answers):
        yield InScope(prompt, target, PARAPHRASE if place else EDIT)


def _probe_set(suites: Suites, in_force: Sequence[Edit], rng: Random) -> list[str]:
    """Questions on facts that no edit in force is about, one for each fact."""
    if PROBE_SET_SUITE not in suites:
        return []
    edited = {
        normalise(text) for edit in in_force for text in (edit.descriptor.prompt, *edit.descriptor.scope.in_scope)
    }
    asked = [[probe.prompt for probe in case.in_scope] for case in suites[PROBE_SET_SUITE]()]
    apart = [prompts for prompts in asked if prompts and edited.isdisjoint(map(normalise, prompts))]
    return [rng.choice(prompts) for prompts in rng.sample(apart, min(PROBE_SET_SIZE, len(apart)))]
