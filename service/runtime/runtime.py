"""The runtime: answers prompts with the base or with an edit, and keeps the live memory at the newest revision."""

from __future__ import annotations

import asyncio

from editors.edit import EditDescriptor
from editors.model.loading import BaseModel
from editors.serac.counterfactual import in_context, in_context_messages
from service.domain.edits import AnswerMode, Descriptor, Edit, Embeddings, StoredEdit
from service.domain.generations import (
    FinishReason,
    Generation,
    GenerationRequest,
    Message,
    Sampling,
    Source,
    Usage,
)
from service.domain.matches import Match
from service.domain.ports import RuntimeInfo, Store
from service.errors import EditTooLong, NotCaughtUp, VersionNotFound
from service.runtime.descriptors import edit_descriptor
from service.runtime.engine import Completion, TransformersEngine
from service.runtime.live_memory import LiveMemory, Verdict
from service.runtime.owner import Owner

BASE_VERSION = "v0"
ACTIVE = "active"
CHANGES_AT_ONCE = 1000


class ModelRuntime:
    """Implements `service.domain.ports.Runtime` on one base model.

    Two threads own what is mutable: one the live memory, one the model.

    Args:
        base: The frozen base model.
        memory: The live memory, empty.
        store: Where committed changes are read from.
        catch_up_seconds: Longest wait for a request's `min_revision`.
    """

    def __init__(self, base: BaseModel, memory: LiveMemory, store: Store, *, catch_up_seconds: float) -> None:
        self._base = base
        self._engine = TransformersEngine(base)
        self._memory = memory
        self._store = store
        self._catch_up_seconds = catch_up_seconds
        self._model_owner = Owner("model")
        self._memory_owner = Owner("memory")
        self._catching_up = asyncio.Lock()
        self._caught_up = asyncio.Condition()
        self._parameters = sum(parameter.numel() for parameter in base.model.parameters())

    async def start(self) -> None:
        """Load every edit in force, embedding again those of another encoder, and answer one prompt to warm up."""
        stored, revision = await self._snapshot()
        if stale := [edit for edit in stored if self._memory.is_stale(edit)]:
            await self._renew(stale)
            stored, revision = await self._snapshot()
        await self._memory_owner.run(self._memory.install, stored, revision=revision)
        await self._decide("warm up")
        await self._model_owner.run(self._engine.complete, "warm up", Sampling(max_new_tokens=1))

    def close(self) -> None:
        """Finish what is running and end both threads."""
        self._memory_owner.close()
        self._model_owner.close()

    async def prepare(self, descriptor: Descriptor) -> Embeddings:
        """Check that an edit can be served and embed its texts. Leaves no trace.

        Raises:
            EditTooLong: Read in context, it takes more than half of it.
        """
        if descriptor.answer is AnswerMode.COUNTERFACTUAL:
            context = in_context(edit_descriptor(descriptor), "")
            tokens = await self._model_owner.run(self._engine.count, context)
            room = self._base.context_length // 2
            if tokens > room:
                raise EditTooLong(
                    f"The edit takes {tokens} tokens; {self._base.name} can give an edit {room} of its "
                    f"{self._base.context_length}.",
                    extra={"edit_tokens": tokens, "edit_room": room},
                )
        return await self._memory_owner.run(self._memory.embed, descriptor)

    async def catch_up(self) -> int:
        """Install every change committed so far, in order; see docs/decisions/0001."""
        async with self._catching_up:
            while True:
                async with self._store.reading() as reading:
                    changes = await reading.changes.since(self._memory.revision, limit=CHANGES_AT_ONCE)
                    ids = tuple(dict.fromkeys(change.subject_id for change in changes))
                    edits = await reading.edits.with_ids(ids) if ids else ()
                if changes:
                    await self._memory_owner.run(self._memory.install, edits, revision=changes[-1].revision)
                    async with self._caught_up:
                        self._caught_up.notify_all()
                if len(changes) < CHANGES_AT_ONCE:
                    return self._memory.revision

    async def match(self, prompts: tuple[str, ...]) -> tuple[Match, ...]:
        """Decide which edit, if any, answers each prompt."""
        verdicts = await self._memory_owner.run(self._memory.decide, prompts)
        return tuple(verdict.match for verdict in verdicts)

    async def generate(self, request: GenerationRequest) -> Generation:
        """Answer a prompt: by the edit in whose scope it is, or by the base (Mitchell et al. 2022, sec. 3).

        Raises:
            PromptTooLong: Prompt and answer do not fit in the context.
            NoChatTemplate: Messages were sent to a base that has no chat template.
            VersionNotFound: No such version.
            NotCaughtUp: `min_revision` was not reached in time.
        """
        if request.version not in {ACTIVE, BASE_VERSION}:
            raise VersionNotFound(f"There is no version {request.version!r}.")
        if request.min_revision is not None:
            await self._wait_for(request.min_revision)
        verdict = await self._decide(_question(request)) if request.edits else None
        edit = verdict.edit if verdict is not None else None
        completion = await self._answer(request, edit)
        return Generation(
            text=completion.text.strip(),
            source=Source.BASE if edit is None else Source.EDIT,
            edit_id=None if edit is None else edit.id,
            beta=None if verdict is None else verdict.match.beta,
            version=BASE_VERSION,
            revision=self._memory.revision if verdict is None else verdict.match.revision,
            usage=completion.usage,
            finish_reason=completion.finish_reason,
        )

    def info(self) -> RuntimeInfo:
        """What is being served now."""
        return RuntimeInfo(
            model=self._base.name,
            architecture=str(self._base.model.config.model_type),
            parameters=self._parameters,
            device=str(self._base.device),
            dtype=str(self._base.dtype).removeprefix("torch."),
            context_length=self._base.context_length,
            version=BASE_VERSION,
            revision=self._memory.revision,
            edits=len(self._memory),
            memory=self._memory.figures(),
        )

    async def _decide(self, prompt: str) -> Verdict:
        (verdict,) = await self._memory_owner.run(self._memory.decide, (prompt,))
        return verdict

    async def _answer(self, request: GenerationRequest, edit: Edit | None) -> Completion:
        if edit is not None and edit.descriptor.answer is AnswerMode.VERBATIM:
            return Completion(edit.descriptor.target, Usage(prompt_tokens=0, completion_tokens=0), FinishReason.STOP)
        descriptor = None if edit is None else edit_descriptor(edit.descriptor)
        return await self._model_owner.run(self._complete, request, descriptor)

    def _complete(self, request: GenerationRequest, descriptor: EditDescriptor | None) -> Completion:
        """Let the model answer, reading the edit in its context if there is one. Runs on the model's thread."""
        if request.prompt is not None:
            prompt = request.prompt if descriptor is None else in_context(descriptor, request.prompt)
            return self._engine.complete(prompt, request.sampling)
        messages = request.messages
        if descriptor is not None:
            turns = [{"role": message.role, "content": message.content} for message in messages]
            messages = tuple(Message(**turn) for turn in in_context_messages(descriptor, turns))
        return self._engine.complete(self._engine.render(messages), request.sampling, rendered=True)

    async def _wait_for(self, revision: int) -> None:
        if self._memory.revision < revision:
            await self.catch_up()
        try:
            async with asyncio.timeout(self._catch_up_seconds), self._caught_up:
                await self._caught_up.wait_for(lambda: self._memory.revision >= revision)
        except TimeoutError as error:
            raise NotCaughtUp(
                f"This replica is at revision {self._memory.revision}; {revision} was asked for and did not come "
                f"within {self._catch_up_seconds:g} s."
            ) from error

    async def _snapshot(self) -> tuple[tuple[StoredEdit, ...], int]:
        async with self._store.reading() as reading:
            return await reading.edits.active(), await reading.changes.revision()

    async def _renew(self, stale: list[StoredEdit]) -> None:
        """Replace the stored embeddings of another encoder, so that the next start is quick."""
        fresh = [
            (edit.edit.id, await self._memory_owner.run(self._memory.embed, edit.edit.descriptor)) for edit in stale
        ]
        async with self._store.writing(actor="errata") as writing:
            for edit_id, embeddings in fresh:
                await writing.edits.embed_again(edit_id, embeddings)


def _question(request: GenerationRequest) -> str:
    """What scope is judged on: the prompt, or the last thing the user said."""
    if request.prompt is not None:
        return request.prompt
    said = [message.content for message in request.messages if message.role == "user"]
    return said[-1] if said else request.messages[-1].content
