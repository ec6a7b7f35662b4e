"""The evaluator: judges cases on the model that serves, a step at a time, so that other requests are answered between.

Each step is queued with the owner of what it works on, like any other request.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial

from editors.errors import ContextExceeded
from editors.evaluation.asked import Asked
from editors.evaluation.cases import Case
from editors.evaluation.fields import fields_of
from editors.evaluation.groups import grouped
from editors.evaluation.harness import Apply, Harness, Where
from editors.evaluation.records import GENERATED, TEACHER_FORCED, Mode
from editors.evaluation.subject import Subject
from editors.evaluation.subjects import Decide, MemorySubject, ModelSubject, Ruling
from service.domain.edits import AnswerMode, Descriptor, Edit, Embeddings
from service.domain.evaluations import BASE, MEMORY, SERAC, EvaluationReport, EvaluationRequest
from service.domain.ports import Progress
from service.domain.versions import VERSION_NAME, BakedEdit
from service.errors import (
    ArtifactDamaged,
    ArtifactsUnavailable,
    BaseMismatch,
    PromptTooLong,
    StorageFull,
    UnknownSubject,
    VersionNotFound,
)
from service.runtime.called import CalledModel
from service.runtime.descriptors import edit_descriptor
from service.runtime.engine import Engine, TransformersEngine
from service.runtime.evaluation_plan import EvaluationPlan, Suites, answers_alone, plan_of
from service.runtime.evaluation_report import Run, report_of
from service.runtime.live_memory import LiveMemory
from service.runtime.live_state import LiveState
from service.runtime.owner import Owner
from service.runtime.room import refuse_overlong
from service.runtime.versions import LiveVersion, LiveVersions

EDITS_EMBEDDED_AT_ONCE = 64
MEMORIES_AT_ONCE = 64
"""Scratch memories that are asked together, so that small groups of edits still fill the model's batches."""


class ServedModel(ModelSubject):
    """A model, generating as its engine does for any caller."""

    def __init__(self, engine: TransformersEngine, *, max_new_tokens: int) -> None:
        model = engine.model
        super().__init__(
            model.model, model.tokenizer, max_new_tokens=max_new_tokens, context_length=model.context_length
        )
        self._engine = engine

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """The answers that `/generate` gives, in the order of the prompts."""
        completions = self._engine.complete_many(prompts, max_new_tokens=self._max_new_tokens)
        return [completion.text.strip() for completion in completions]


class Evaluator:
    """Implements `plan` and `evaluate` of `service.domain.ports.Runtime`.

    An evaluation against the memory is of one revision: it decides with the edits, and asks the version, that were in
    force when it began.

    Args:
        versions: Of the model. Of a base elsewhere, no more is measured than what it answers.
        reader: Generates with the counterfactual model, which may be the base.
        state: What is in force.
        model_owner: The thread of the model, or one that may wait for a base elsewhere.
        memory_owner: The thread of the memory and of the encoder.
        suites: By name.
    """

    def __init__(
        self,
        versions: LiveVersions,
        reader: Engine,
        state: LiveState,
        *,
        model_owner: Owner,
        memory_owner: Owner,
        suites: Suites,
    ) -> None:
        self._versions = versions
        self._engine = versions.base.engine
        self._is_here = self._engine.is_here
        self._modes: tuple[Mode, ...] = (GENERATED, TEACHER_FORCED) if self._is_here else (GENERATED,)
        self._reader = reader
        self._state = state
        self._memory = state.memory
        self._owners = {Where.MODEL: model_owner, Where.EDITS: memory_owner}
        self._suites = suites

    async def plan(self, request: EvaluationRequest) -> int:
        """How many probes an evaluation judges; raises as the port says."""
        await self._refuse_unknown(request.against)
        edits = await self._owners[Where.EDITS].run(self._memory.in_force)
        return (await self._planned(request, edits)).probes

    async def evaluate(self, request: EvaluationRequest, *, progress: Progress) -> EvaluationReport | None:
        """Judge every probe; raises as the port says."""
        started = time.perf_counter()
        pinned, active = await self._owners[Where.EDITS].run(self._state.pinned)
        plan = await self._planned(request, pinned.in_force())
        beside = {MEMORY: active, BASE: self._versions.base, SERAC: self._versions.base}.get(request.against)
        version = beside or await self._versions.version(request.against)
        with self._subjects(version, request.max_new_tokens) as (base, served, reader):
            embeddings = await self._embed(plan, progress) if request.against == SERAC else {}
            if embeddings is None:
                return None
            memory = partial(_rule, pinned, without=version.edits) if request.against == MEMORY else None
            apply = _apply(request.against, served, reader.subject, memory, partial(_holding, pinned, plan, embeddings))
            runs: list[Run] = []
            for size in plan.sizes:
                groups = grouped(plan.cases, size, seed=request.seed) if request.against == SERAC else [plan.cases]
                fields = fields_of(plan.metrics, self._modes)
                harness = Harness(groups, base, apply, fields, reader=reader, groups_at_once=MEMORIES_AT_ONCE)
                if not await self._run(harness, progress, judged=sum(len(run.records) for run in runs)):
                    return None
                held = {MEMORY: len(pinned), SERAC: size}.get(request.against, len(version.edits))
                runs.append(Run(held, harness.records))
        seconds = time.perf_counter() - started
        return await asyncio.to_thread(
            report_of, runs, plan.metrics, revision=pinned.revision, seconds=seconds, version=version.id
        )

    async def _refuse_unknown(self, against: str) -> None:
        """Check that a version to evaluate is there; whether it can be loaded, the evaluation itself will find."""
        if not re.fullmatch(VERSION_NAME, against):
            return
        try:
            await self._versions.version(against)
        except VersionNotFound as error:
            raise UnknownSubject(error.detail, hint=error.hint) from error
        except (BaseMismatch, ArtifactDamaged, ArtifactsUnavailable, StorageFull):
            return

    async def _planned(self, request: EvaluationRequest, edits: Sequence[Edit]) -> EvaluationPlan:
        plan = await asyncio.to_thread(plan_of, request, self._suites, edits)
        return plan if self._is_here else answers_alone(plan, request.metrics)

    @contextmanager
    def _subjects(self, version: LiveVersion, max_new_tokens: int) -> Iterator[tuple[Asked, Subject, Asked]]:
        """The base, a version of it, and the counterfactual model; first and last are asked each question once."""
        with ExitStack() as stack:

            def subject(engine: Engine) -> Subject:
                if self._is_here and isinstance(engine, TransformersEngine):
                    return ServedModel(engine, max_new_tokens=max_new_tokens)
                return stack.enter_context(closing(CalledModel(engine, max_new_tokens=max_new_tokens)))

            base = Asked(subject(self._engine))
            served = base.subject if version is self._versions.base else subject(version.engine)
            yield base, served, base if self._reader is self._engine else Asked(subject(self._reader))

    async def _embed(self, plan: EvaluationPlan, progress: Progress) -> dict[str, Embeddings] | None:
        """The embeddings of the cases' edits, by the case's id; None when told to stop."""
        embeddings: dict[str, Embeddings] = {}
        edits = list(plan.edits.items())
        for start in range(0, len(edits), EDITS_EMBEDDED_AT_ONCE):
            names, descriptors = zip(*edits[start : start + EDITS_EMBEDDED_AT_ONCE], strict=True)
            await self._owners[Where.MODEL].run(refuse_overlong, self._reader, descriptors)
            found = await self._owners[Where.EDITS].run(self._memory.embed_many, descriptors)
            embeddings |= zip(names, found, strict=True)
            if not await progress(0):
                return None
        return embeddings

    async def _run(self, harness: Harness, progress: Progress, *, judged: int) -> bool:
        """Do every step where it belongs; False when told to stop."""
        with closing(harness.steps()) as steps:
            for step in steps:
                try:
                    await self._owners[step.where].run(step.run)
                except ContextExceeded as error:
                    raise PromptTooLong(error.detail, hint=error.hint) from error
                if not await progress(judged + len(harness.records)):
                    return False
        return await progress(judged + len(harness.records))


def _apply(
    against: str, model: Subject, reader: Subject, memory: Decide | None, holding: Callable[[Sequence[Case]], Decide]
) -> Apply:
    """How a group of cases' edits come into force: they are already, or are held for the group."""
    if against != SERAC:
        subject = model if memory is None else MemorySubject(model, memory, counterfactual=reader)
        return lambda _: nullcontext(subject)
    return lambda cases: nullcontext(MemorySubject(model, holding(cases), counterfactual=reader))


def _holding(
    pinned: LiveMemory, plan: EvaluationPlan, embeddings: dict[str, Embeddings], cases: Sequence[Case]
) -> Decide:
    edits = [(plan.edits[case.id], embeddings[case.id]) for case in cases if case.id in plan.edits]
    return partial(_rule, pinned.holding(edits))


def _rule(memory: LiveMemory, prompts: Sequence[str], *, without: frozenset[BakedEdit] = frozenset()) -> list[Ruling]:
    return [
        Ruling(beta=verdict.match.beta)
        if verdict.edit is None
        else _ruling(verdict.match.beta, verdict.edit.descriptor)
        for verdict in memory.decide(prompts, without=without)
    ]


def _ruling(beta: float | None, descriptor: Descriptor) -> Ruling:
    verbatim = descriptor.target if descriptor.answer is AnswerMode.VERBATIM else None
    return Ruling(beta=beta, edit=edit_descriptor(descriptor), verbatim=verbatim)
