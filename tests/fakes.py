"""A runtime without a model, which keeps the promises of `service.domain.ports.Runtime`, and an app around it."""

from __future__ import annotations

import re
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

import httpx
import torch
from starlette.types import Receive, Scope, Send
from torch import Tensor

from editors.evaluation.asked import Asked
from editors.evaluation.cases import Case
from editors.evaluation.fields import fields_of
from editors.evaluation.groups import grouped
from editors.evaluation.harness import Harness
from editors.evaluation.subject import Scored
from service.actions.services import Services
from service.app import create_app
from service.domain.edits import Descriptor, Edit, EditState, Embeddings, normalise
from service.domain.evaluations import BASE, MEMORY, SERAC, EvaluationReport, EvaluationRequest
from service.domain.generations import FinishReason, Generation, GenerationRequest, Head, Source, Stream, Usage
from service.domain.matches import Candidate, Decision, Match
from service.domain.ports import Backlog, Progress, RuntimeInfo, Store
from service.domain.previews import PREVIEW, Probed
from service.domain.serving import Serving, is_contained
from service.domain.versions import BakedEdit, Version
from service.errors import (
    EditTooLong,
    NoChatTemplate,
    NotCaughtUp,
    PromptTooLong,
    StoreUnavailable,
    VersionNotFound,
)
from service.runtime.evaluation_plan import plan_of
from service.runtime.evaluation_report import Run, report_of
from service.settings import Settings
from tests.suites import SUITES


@dataclass(frozen=True)
class ExactSubject:
    """Answers with the target of the edit whose scope the prompt is in, else with the prompt's words in reverse."""

    targets: dict[str, str]

    def generate(self, prompts: Sequence[str]) -> list[str]:
        return [self.targets.get(normalise(prompt)) or " ".join(prompt.split()[::-1]) for prompt in prompts]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        said = self.generate([prompt for prompt, _ in pairs])
        return [Scored((0.0 if t == s else -9.0,), (t == s,)) for s, (_, t) in zip(said, pairs, strict=True)]

    def distributions(self, pairs: Sequence[tuple[str, str]]) -> list[Tensor]:
        likely = torch.tensor([0.9, 0.1]).log()
        return [likely[None] if scored.exact else likely.flip(0)[None] for scored in self.score(pairs)]


class ExactRuntime:
    """An edit's scope is its prompt and its in-scope examples, as `normalise` sees them; a token is a word.

    The base answers with the words of the prompt in reverse.
    """

    context_length = 64
    threshold = 0.5

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revision = 0
        self._edits: tuple[Edit, ...] = ()
        self._serving = Serving()
        self._baked: dict[str, tuple[BakedEdit, ...]] = {"v0": ()}

    async def prepare(self, descriptor: Descriptor) -> Embeddings:
        words = sum(len(text.split()) for text in (descriptor.prompt, descriptor.target))
        if words > self.context_length:
            raise EditTooLong(f"The edit takes {words} tokens of {self.context_length}.")
        lengths = [float(len(text)) for text in descriptor.texts]
        return Embeddings(encoder="exact", vectors=struct.pack(f"<{len(lengths)}f", *lengths))

    async def unfit(self, descriptors):
        found = {}
        for place, descriptor in enumerate(descriptors):
            try:
                await self.prepare(descriptor)
            except EditTooLong as error:
                found[place] = error
        return found

    async def prepare_many(self, descriptors):
        for descriptor in descriptors:
            yield [await self.prepare(descriptor)]

    async def preview(self, descriptor, embeddings, probes, *, without, sampling):
        now = datetime.now(UTC)
        new = Edit(
            id=PREVIEW, revision=0, descriptor=descriptor, state=EditState.ACTIVE, created_at=now, updated_at=now
        )
        other = ExactRuntime(self._store)
        other._revision, other._edits = self._revision, (*(e for e in self._edits if e.id not in without), new)
        other._serving, other._baked = self._serving, self._baked
        requests = [GenerationRequest(prompt=prompt, sampling=sampling) for prompt in probes]
        return [
            Probed(
                prompt=request.prompt,
                before=await self.generate(request),
                after=await other.generate(request),
                beta=other._candidate(new, request.prompt).beta,
            )
            for request in requests
        ]

    async def load(self, version_id: str) -> None:
        if version_id not in self._baked:
            async with self._store.reading() as reading:
                version = await reading.versions.get(version_id)
            if version is None:
                raise VersionNotFound(f"There is no version {version_id}.")
            self._baked[version_id] = version.edits

    def serves(self, version: Version) -> bool:
        return True

    async def catch_up(self) -> int:
        async with self._store.reading() as reading:
            revision = await reading.changes.revision()
            edits = tuple(stored.edit for stored in await reading.edits.active())
            serving = await reading.serving.now()
        for version_id in serving.answering:
            await self.load(version_id)
        self._revision, self._edits, self._serving = revision, edits, serving
        return revision

    async def match(self, prompts: tuple[str, ...]) -> tuple[Match, ...]:
        return tuple(self._match(prompt, self._serving.active) for prompt in prompts)

    async def generate(self, request: GenerationRequest) -> Generation:
        if request.prompt is None and len(request.messages) == 1 and request.messages[0].role == "user":
            request = replace(request, prompt=request.messages[0].content, messages=())
        if request.prompt is None:
            raise NoChatTemplate("The base model has no chat template.")
        version = self._serving.version_for(request.key) if request.version == "active" else request.version
        await self.load(version)
        if request.min_revision is not None and request.min_revision > self._revision:
            raise NotCaughtUp(f"This replica is at revision {self._revision}.")
        words = request.prompt.split()
        least = 1 if request.sampling.fitted else request.sampling.max_new_tokens
        if len(words) + least > self.context_length:
            raise PromptTooLong(f"{len(words)} + {least} tokens are over the limit.")
        match = self._match(request.prompt, version) if request.edits else None
        edit = next((edit for edit in self._edits if match and edit.id == match.edit_id), None)
        said = edit.descriptor.target.split() if edit else words[::-1]
        kept = said[: request.sampling.max_new_tokens]
        return Generation(
            text=" ".join(kept),
            source=Source.EDIT if edit else Source.BASE,
            edit_id=edit.id if edit else None,
            beta=match.beta if match else None,
            version=version,
            revision=self._revision,
            usage=Usage(prompt_tokens=len(words), completion_tokens=len(kept)),
            finish_reason=FinishReason.STOP if kept == said else FinishReason.LENGTH,
        )

    async def stream(self, request: GenerationRequest) -> Stream:
        whole = await self.generate(request)

        async def parts() -> AsyncIterator[str | Generation]:
            for piece in re.findall(r"\s*\S+", whole.text):
                yield piece
            yield whole

        head = Head(**{field.name: getattr(whole, field.name) for field in fields(Head)})
        return Stream(head=head, parts=parts(), close=lambda: None)

    async def plan(self, request: EvaluationRequest) -> int:
        return plan_of(request, SUITES, self._edits).probes

    async def evaluate(self, request: EvaluationRequest, *, progress: Progress) -> EvaluationReport | None:
        plan, edits, revision = plan_of(request, SUITES, self._edits), self._edits, self._revision
        for descriptor in plan.edits.values():
            if request.against == SERAC:
                await self.prepare(descriptor)
        base = ExactSubject({})
        asked, runs = Asked(base), []
        in_force = ExactSubject(_targets(edit.descriptor for edit in edits))

        def subject(cases: Sequence[Case]) -> ExactSubject:
            held = _targets(plan.edits[case.id] for case in cases if case.id in plan.edits)
            return {MEMORY: in_force, BASE: base, SERAC: ExactSubject(held)}[request.against]

        for size in plan.sizes:
            groups = grouped(plan.cases, size, seed=request.seed) if request.against == SERAC else [plan.cases]
            harness = Harness(groups, asked, lambda cases: nullcontext(subject(cases)), fields_of(plan.metrics))
            done = sum(len(run.records) for run in runs)
            with closing(harness.steps()) as steps:
                for step in steps:
                    step.run()
                    if not await progress(done + len(harness.records)):
                        return None
            if not await progress(done + len(harness.records)):
                return None
            runs.append(Run({MEMORY: len(edits), BASE: 0, SERAC: size}[request.against], harness.records))
        return report_of(runs, plan.metrics, revision=revision, seconds=0.0)

    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            model="exact",
            architecture="none",
            parameters=0,
            device="cpu",
            dtype="float32",
            context_length=self.context_length,
            version=self._serving.active,
            canary=self._serving.canary,
            percent=self._serving.percent,
            problem=None,
            failure=None,
            revision=self._revision,
            edits=len(self._edits),
            baked=len(self._edits) - len(self._served(self._serving.active)),
            memory={"encoder": "exact", "width": 1, "rows": sum(len(edit.descriptor.texts) for edit in self._edits)},
        )

    def backlog(self) -> Backlog:
        return Backlog(running=0, waiting=0)

    def _served(self, version: str) -> tuple[Edit, ...]:
        return tuple(edit for edit in self._edits if not is_contained(edit, self._baked[version]))

    def _match(self, prompt: str, version: str) -> Match:
        candidates = [self._candidate(edit, prompt) for edit in self._served(version)]
        candidates.sort(key=lambda candidate: -candidate.beta)
        best = candidates[0] if candidates else None
        fires = best is not None and best.beta >= best.threshold
        near = Decision.IN_SCOPE if fires else Decision.BELOW_THRESHOLD
        return Match(
            edit_id=best.edit_id if best and fires else None,
            beta=best.beta if best else None,
            threshold=best.threshold if best else None,
            decision=near if best else Decision.NO_EDITS,
            candidates=tuple(candidates[:8]),
            revision=self._revision,
            version=version,
        )

    def _candidate(self, edit: Edit, prompt: str) -> Candidate:
        scope = edit.descriptor.scope
        texts = (edit.descriptor.prompt, *scope.in_scope)
        hit = next((text for text in texts if normalise(text) == normalise(prompt)), None)
        return Candidate(
            edit_id=edit.id,
            beta=0.0 if hit is None else 1.0,
            threshold=self.threshold if scope.threshold is None else scope.threshold,
            similarity=0.0 if hit is None else 1.0,
            matched_text=hit or texts[0],
            excluded=False,
        )


class LostStore:
    """A store whose PostgreSQL is gone."""

    def reading(self):
        raise StoreUnavailable("PostgreSQL does not answer: connection refused.")

    def writing(self, *, actor, receipt=None):
        raise StoreUnavailable("PostgreSQL does not answer: connection refused.")

    def recording(self, *, receipt=None):
        raise StoreUnavailable("PostgreSQL does not answer: connection refused.")

    async def migration(self):
        raise StoreUnavailable("PostgreSQL does not answer: connection refused.")


def _targets(descriptors: Iterable[Descriptor]) -> dict[str, str]:
    """The answer of each prompt in the scope of an edit; of two edits the later one's."""
    texts = [(text, d.target) for d in descriptors for text in (d.prompt, *d.scope.in_scope)]
    return {normalise(text): target for text, target in texts}


@asynccontextmanager
async def client_of(services: Services, settings: Settings | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the doors on these services, in this process."""
    app = create_app(services, settings)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"services": services}}, receive, send)

    transport = httpx.ASGITransport(app=with_state)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://errata.test") as client,
    ):
        yield client
