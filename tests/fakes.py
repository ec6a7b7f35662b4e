"""A runtime without a model, which keeps the promises of `service.domain.ports.Runtime`, and an app around it."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from service.actions.services import Services
from service.app import create_app
from service.domain.edits import Descriptor, Edit, Embeddings, normalise
from service.domain.generations import FinishReason, Generation, GenerationRequest, Source, Usage
from service.domain.matches import Candidate, Decision, Match
from service.domain.ports import RuntimeInfo, Store
from service.errors import EditTooLong, NoChatTemplate, NotCaughtUp, PromptTooLong, VersionNotFound


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

    async def prepare(self, descriptor: Descriptor) -> Embeddings:
        words = sum(len(text.split()) for text in (descriptor.prompt, descriptor.target))
        if words > self.context_length:
            raise EditTooLong(f"The edit takes {words} tokens of {self.context_length}.")
        lengths = [float(len(text)) for text in descriptor.texts]
        return Embeddings(encoder="exact", vectors=struct.pack(f"<{len(lengths)}f", *lengths))

    async def catch_up(self) -> int:
        async with self._store.reading() as reading:
            revision = await reading.changes.revision()
            edits = tuple(stored.edit for stored in await reading.edits.active())
        self._revision, self._edits = revision, edits
        return revision

    async def match(self, prompts: tuple[str, ...]) -> tuple[Match, ...]:
        return tuple(self._match(prompt) for prompt in prompts)

    async def generate(self, request: GenerationRequest) -> Generation:
        if request.prompt is None:
            raise NoChatTemplate("The base model has no chat template.")
        if request.version not in {"active", "v0"}:
            raise VersionNotFound(f"There is no version {request.version}.")
        if request.min_revision is not None and request.min_revision > self._revision:
            raise NotCaughtUp(f"This replica is at revision {self._revision}.")
        words = request.prompt.split()
        if len(words) + request.sampling.max_new_tokens > self.context_length:
            raise PromptTooLong(f"{len(words)} + {request.sampling.max_new_tokens} tokens are over the limit.")
        match = self._match(request.prompt) if request.edits else None
        edit = next((edit for edit in self._edits if match and edit.id == match.edit_id), None)
        said = edit.descriptor.target.split() if edit else words[::-1]
        kept = said[: request.sampling.max_new_tokens]
        return Generation(
            text=" ".join(kept),
            source=Source.EDIT if edit else Source.BASE,
            edit_id=edit.id if edit else None,
            beta=match.beta if match else None,
            version="v0",
            revision=self._revision,
            usage=Usage(prompt_tokens=len(words), completion_tokens=len(kept)),
            finish_reason=FinishReason.STOP if kept == said else FinishReason.LENGTH,
        )

    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            model="exact",
            architecture="none",
            parameters=0,
            device="cpu",
            dtype="float32",
            context_length=self.context_length,
            version="v0",
            revision=self._revision,
            edits=len(self._edits),
            memory={"encoder": "exact", "width": 1},
        )

    def _match(self, prompt: str) -> Match:
        candidates = [self._candidate(edit, prompt) for edit in self._edits]
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


def app_of(services: Services) -> ASGIApp:
    """The application on these services, for a client that does not run its lifespan."""
    app = create_app(services)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"services": services}}, receive, send)

    return with_state


@asynccontextmanager
async def client_of(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the doors on these services, in this process."""
    transport = httpx.ASGITransport(app=app_of(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://errata.test") as client:
        yield client
