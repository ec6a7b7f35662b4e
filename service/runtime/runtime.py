"""The runtime: answers prompts with the base or with an edit, and keeps the live memory at the newest revision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from editors.edit import EditDescriptor
from editors.model.loading import BaseModel
from editors.serac.counterfactual import in_context, in_context_messages
from service.domain.edits import AnswerMode, Descriptor, Edit, Embeddings, StoredEdit
from service.domain.evaluations import EvaluationReport, EvaluationRequest
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
from service.domain.ports import Backlog, Progress, RuntimeInfo, Store
from service.domain.previews import Probed
from service.errors import EditTooLong, NotCaughtUp, VersionNotFound
from service.runtime.decisions import Decisions
from service.runtime.descriptors import batches, edit_descriptor
from service.runtime.engine import BASE_VERSION, Completion, TransformersEngine
from service.runtime.evaluation_plan import Suites
from service.runtime.evaluator import Evaluator
from service.runtime.live_memory import LiveMemory, Verdict
from service.runtime.owner import Owner
from service.runtime.previewer import Previewer
from service.runtime.room import overlong, refuse_overlong
from service.runtime.snapshot import MemoryFile

ACTIVE = "active"
CHANGES_AT_ONCE = 1000
EDITS_COUNTED_AT_ONCE = 256
TEXTS_EMBEDDED_AT_ONCE = 32


class ModelRuntime:
    """Implements `service.domain.ports.Runtime` on one base model.

    Two threads own what is mutable: one the live memory, one the model.

    Args:
        base: The frozen base model.
        memory: The live memory, empty.
        store: Where committed changes are read from.
        catch_up_seconds: Longest wait for a request's `min_revision`.
        suites: What can be evaluated by name.
        counterfactual: Answers prompts in the scope of an edit; the base itself when None.
        file: Where the memory is saved for a quick start; it is not when None.
    """

    def __init__(
        self,
        base: BaseModel,
        memory: LiveMemory,
        store: Store,
        *,
        catch_up_seconds: float,
        suites: Suites,
        counterfactual: BaseModel | None = None,
        file: MemoryFile | None = None,
    ) -> None:
        self._base = base
        self._engine = TransformersEngine(base)
        self._reader = self._engine if counterfactual is None else TransformersEngine(counterfactual)
        self._memory = memory
        self._store = store
        self._catch_up_seconds = catch_up_seconds
        self._model_owner = Owner("model")
        self._memory_owner = Owner("memory")
        self._decisions = Decisions(memory, self._memory_owner)
        self._file = file
        self._evaluator = Evaluator(
            self._engine,
            self._reader,
            memory,
            model_owner=self._model_owner,
            memory_owner=self._memory_owner,
            suites=suites,
        )
        self._previewer = Previewer(memory, self._memory_owner, self._generation)
        self._catching_up = asyncio.Lock()
        self._caught_up = asyncio.Condition()
        self._parameters = sum(parameter.numel() for parameter in base.model.parameters())

    async def start(self) -> None:
        """Load every edit in force, embedding again those of another encoder, and answer one prompt to warm up."""
        stored, revision = await self._read()
        fresh = await self._renewed(stored)
        await self._memory_owner.run(self._memory.install, fresh, revision=revision)
        await self._decide("warm up")
        await self._model_owner.run(self._engine.complete, "warm up", Sampling(max_new_tokens=1))

    def close(self) -> None:
        """Finish what is running, end both threads, and save the memory."""
        self._memory_owner.close()
        self._model_owner.close()
        if self._file is not None and self._file.due(len(self._memory), self._memory.revision):
            self._file.write(self._memory.state())

    async def save(self) -> None:
        """Save the memory for a quick start, if it is large and has changed."""
        if self._file is not None and self._file.due(len(self._memory), self._memory.revision):
            state = await self._memory_owner.run(self._memory.state)
            await asyncio.to_thread(self._file.write, state)

    async def prepare(self, descriptor: Descriptor) -> Embeddings:
        """Check that an edit can be served and embed its texts. Leaves no trace.

        Raises:
            EditTooLong: Read in context, it takes more than half of it.
        """
        if descriptor.answer is AnswerMode.COUNTERFACTUAL:
            await self._model_owner.run(refuse_overlong, self._reader, (descriptor,))
        return await self._memory_owner.run(self._memory.embed, descriptor)

    async def unfit(self, descriptors: Sequence[Descriptor]) -> dict[int, EditTooLong]:
        """Which of many edits `prepare` would refuse, by their places, and why."""
        found: dict[int, EditTooLong] = {}
        for start in range(0, len(descriptors), EDITS_COUNTED_AT_ONCE):
            some = descriptors[start : start + EDITS_COUNTED_AT_ONCE]
            unfit = await self._model_owner.run(overlong, self._reader, some)
            found |= {start + place: error for place, error in unfit.items()}
        return found

    async def prepare_many(self, descriptors: Sequence[Descriptor]) -> AsyncIterator[list[Embeddings]]:
        """Embed the texts of many edits, some at a time, between other requests. Leaves no trace."""
        for some in batches(descriptors, texts_at_once=TEXTS_EMBEDDED_AT_ONCE):
            yield await self._memory_owner.run(self._memory.embed_many, some)

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
        verdicts = await self._decisions.decide(prompts)
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
        return await self._generation(request, await self._decide(_question(request)) if request.edits else None)

    async def preview(
        self,
        descriptor: Descriptor,
        embeddings: Embeddings,
        probes: Sequence[str],
        *,
        without: frozenset[str],
        sampling: Sampling,
    ) -> list[Probed]:
        """Answer each probe as things are, and with a prepared edit in the place of some others. Leaves no trace.

        Raises:
            PromptTooLong: A probe and its answer do not fit in the context.
        """
        return await self._previewer.preview(descriptor, embeddings, probes, without=without, sampling=sampling)

    async def _generation(self, request: GenerationRequest, verdict: Verdict | None) -> Generation:
        """The answer, when it is decided which edit gives it, if one does."""
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

    async def plan(self, request: EvaluationRequest) -> int:
        """How many probes an evaluation judges; says no before anything is queued.

        Raises:
            UnknownSuite, UnknownMetric, UnknownSubject: Nothing has that name.
            MetricUnavailable: The cases lack a field that a metric asked for needs.
            NothingToEvaluate: There is no probe: no case, or no edit in force.
            EditNotFound: An edit named is not in force.
            Invalid: Two cases have one id, or an in-scope probe has no target.
        """
        return await self._evaluator.plan(request)

    async def evaluate(self, request: EvaluationRequest, *, progress: Progress) -> EvaluationReport | None:
        """Judge every probe, between other requests; None when `progress` said to stop.

        Raises:
            As `plan`, and
            EditTooLong: An edit of a case leaves no room in the model's context.
            PromptTooLong: A probe and its answer do not fit in it.
        """
        return await self._evaluator.evaluate(request, progress=progress)

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

    def backlog(self) -> Backlog:
        """How busy the model is: its thread does one thing at a time."""
        pending = self._model_owner.pending
        return Backlog(running=min(pending, 1), waiting=max(pending - 1, 0))

    async def _decide(self, prompt: str) -> Verdict:
        (verdict,) = await self._decisions.decide((prompt,))
        return verdict

    async def _answer(self, request: GenerationRequest, edit: Edit | None) -> Completion:
        if edit is not None and edit.descriptor.answer is AnswerMode.VERBATIM:
            return Completion(edit.descriptor.target, Usage(prompt_tokens=0, completion_tokens=0), FinishReason.STOP)
        descriptor = None if edit is None else edit_descriptor(edit.descriptor)
        return await self._model_owner.run(self._complete, request, descriptor)

    def _complete(self, request: GenerationRequest, descriptor: EditDescriptor | None) -> Completion:
        """Let the base answer, or the counterfactual model, which reads the edit. Runs on the model's thread."""
        if descriptor is None:
            return self._complete_unedited(request)
        if request.prompt is not None or self._reader is not self._engine:
            # A model trained to read edits reads one question; a conversation is for a base that converses.
            return self._reader.complete(in_context(descriptor, _question(request)), request.sampling)
        turns = [{"role": message.role, "content": message.content} for message in request.messages]
        messages = tuple(Message(**turn) for turn in in_context_messages(descriptor, turns))
        return self._engine.complete(self._engine.render(messages), request.sampling, rendered=True)

    def _complete_unedited(self, request: GenerationRequest) -> Completion:
        if request.prompt is not None:
            return self._engine.complete(request.prompt, request.sampling)
        return self._engine.complete(self._engine.render(request.messages), request.sampling, rendered=True)

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

    async def _read(self) -> tuple[tuple[StoredEdit, ...], int]:
        """The edits in force that are still to be installed, and the revision at which they are; see `snapshot`."""
        saved = None if self._file is None else await asyncio.to_thread(self._file.read, self._memory.encoder)
        async with self._store.reading() as reading:
            revision = await reading.changes.revision()
            if saved is None or saved.revision > revision:
                return await reading.edits.active(), revision
            edits = await reading.edits.in_force()
            lacking = await self._memory_owner.run(self._memory.restore, saved, edits)
            return await reading.edits.with_ids(lacking), revision

    async def _renewed(self, stored: tuple[StoredEdit, ...]) -> list[StoredEdit]:
        """These edits with embeddings of this encoder; new ones are kept, so that the next start is quick."""
        fresh = {
            edit.edit.id: await self._memory_owner.run(self._memory.embed, edit.edit.descriptor)
            for edit in stored
            if self._memory.is_stale(edit)
        }
        if fresh:
            async with self._store.writing(actor="errata") as writing:
                for edit_id, embeddings in fresh.items():
                    await writing.edits.embed_again(edit_id, embeddings)
        return [replace(edit, embeddings=fresh.get(edit.edit.id, edit.embeddings)) for edit in stored]


def _question(request: GenerationRequest) -> str:
    """What scope is judged on: the prompt, or the last thing the user said."""
    if request.prompt is not None:
        return request.prompt
    said = [message.content for message in request.messages if message.role == "user"]
    return said[-1] if said else request.messages[-1].content
