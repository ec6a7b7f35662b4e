"""The runtime: answers prompts with the base or with an edit, and keeps the live memory at the newest revision."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace

from editors.model.layouts import MOST_BYTES, Layouts
from editors.model.loading import BaseModel
from service.domain.answers import AnswerCache
from service.domain.artifacts import Artifacts
from service.domain.edits import AnswerMode, Descriptor, Embeddings, StoredEdit
from service.domain.evaluations import EvaluationReport, EvaluationRequest
from service.domain.generations import ACTIVE, Generation, GenerationRequest, Sampling, Stream
from service.domain.matches import Match
from service.domain.ports import Backlog, Progress, RuntimeInfo, Store
from service.domain.previews import Probed
from service.domain.serving import Serving
from service.domain.versions import Version
from service.errors import EditTooLong, NotCaughtUp, VersionUnavailable
from service.runtime.adapters import Adapters
from service.runtime.answers import Answers, question_of
from service.runtime.cached_answers import CachedAnswers
from service.runtime.decisions import Decisions
from service.runtime.descriptors import batches
from service.runtime.engine import TransformersEngine
from service.runtime.evaluation_plan import Suites
from service.runtime.evaluator import Evaluator
from service.runtime.line import Line, backlog_of
from service.runtime.live_memory import LiveMemory
from service.runtime.live_state import Decided, LiveState, Question
from service.runtime.owner import Owner
from service.runtime.previewer import Previewer
from service.runtime.room import overlong, refuse_overlong
from service.runtime.snapshot import MemoryFile
from service.runtime.streams import Chosen, chosen_by, generation_of, stream_of
from service.runtime.traits import traits_of
from service.runtime.upstream import UpstreamEngine
from service.runtime.versions import LiveServing, LiveVersions

CHANGES_AT_ONCE = 1000
EDITS_COUNTED_AT_ONCE = 256
TEXTS_EMBEDDED_AT_ONCE = 32


class ModelRuntime:
    """Implements `service.domain.ports.Runtime` on one base model.

    Two threads own what is mutable: one the live memory, one the model. A request is given its version together with
    the decision about its edit, and keeps both to its end.

    Args:
        base: The frozen base model, or a server that holds it.
        memory: The live memory, empty.
        store: Where committed changes are read from.
        artifacts: Where the weights of versions are.
        catch_up_seconds: Longest wait for a request's `min_revision`.
        suites: What can be evaluated by name.
        counterfactual: Answers prompts in the scope of an edit; the base itself when None.
        file: Where the memory is saved for a quick start; it is not when None.
        cache: Keeps answers; each is written anew when None.
        line: In which requests wait for the model; the usual one when None.
        layout_bytes: Memory for weights laid out for quick products.
        adapters: How a server that holds the base is given versions; None where it serves none.
    """

    def __init__(
        self,
        base: BaseModel | UpstreamEngine,
        memory: LiveMemory,
        store: Store,
        artifacts: Artifacts,
        *,
        catch_up_seconds: float,
        suites: Suites,
        counterfactual: BaseModel | None = None,
        file: MemoryFile | None = None,
        cache: AnswerCache | None = None,
        line: Line | None = None,
        layout_bytes: int = MOST_BYTES,
        adapters: Adapters | None = None,
    ) -> None:
        self._base = base
        self._memory = memory
        self._store = store
        self._catch_up_seconds = catch_up_seconds
        self._model_owner = Owner("model")
        self._memory_owner = Owner("memory")
        self._line = line or Line()
        self._lines = [self._line] if isinstance(base, BaseModel) else [self._line, base.line]
        # A base elsewhere is measured from a thread that waits for it, which must not be one that answers.
        self._asking_owner = self._model_owner if isinstance(base, BaseModel) else Owner("asking")
        self._versions = LiveVersions(
            base,
            store,
            artifacts,
            owner=self._model_owner,
            line=self._line,
            layout_bytes=layout_bytes,
            adapters=adapters,
        )
        self._engine = self._reader = self._versions.base.engine
        if counterfactual is not None:
            reads = Layouts(counterfactual, most_bytes=layout_bytes - self._versions.laid_out).served(counterfactual)
            self._reader = TransformersEngine(reads, owner=self._model_owner, line=self._line)
        self._state = LiveState(memory, LiveServing(Serving(), {self._versions.base.id: self._versions.base}))
        self._decisions = Decisions(self._state, self._memory_owner)
        self._answers = CachedAnswers(Answers(self._engine, self._reader), cache, store)
        self._file = file
        self._evaluator = Evaluator(
            self._versions,
            self._reader,
            self._state,
            model_owner=self._asking_owner,
            memory_owner=self._memory_owner,
            suites=suites,
        )
        self._previewer = Previewer(self._state, self._memory_owner, self._decided)
        self._catching_up = asyncio.Lock()
        self._caught_up = asyncio.Condition()
        self._traits = traits_of(base)

    async def start(self) -> None:
        """Load every edit in force and the versions that serve, and answer one prompt to warm up.

        Edits of another encoder are embedded again. A version that cannot be loaded is a problem of `info()`.
        """
        stored, revision, wanted = await self._read()
        fresh = await self._renewed(stored)
        serving = await self._versions.serve(wanted, None)
        await self._memory_owner.run(self._state.install, fresh, revision=revision, serving=serving)
        for version in (self._versions.base, *serving.versions.values()):
            await self._decisions.decide((Question("warm up", version=version),))
            await version.engine.warm_up()
        await self._reader.warm_up()

    def close(self) -> None:
        """Finish what is running, end both threads, and save the memory."""
        self._memory_owner.close()
        self._model_owner.close()
        self._asking_owner.close()
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

    async def load(self, version_id: str) -> None:
        """Make a version ready to answer; raises as the port says."""
        await self._versions.version(version_id)

    def serves(self, version: Version) -> bool:
        """Whether a version may be asked for here, by what is known of it."""
        return self._versions.serves(version)

    async def catch_up(self) -> int:
        """Install every change committed so far, in order; see docs/decisions/0001 and 0008."""
        async with self._catching_up:
            while True:
                async with self._store.reading() as reading:
                    changes = await reading.changes.since(self._memory.revision, limit=CHANGES_AT_ONCE)
                    ids = tuple(dict.fromkeys(change.subject_id for change in changes))
                    edits = await reading.edits.with_ids(ids) if ids else ()
                    wanted = await reading.serving.now()
                here = self._state.moment
                last = len(changes) < CHANGES_AT_ONCE
                serving = await self._versions.serve(wanted, here.serving) if last else here.serving
                if changes or serving is not here.serving:
                    revision = changes[-1].revision if changes else here.revision
                    await self._memory_owner.run(self._state.install, edits, revision=revision, serving=serving)
                    async with self._caught_up:
                        self._caught_up.notify_all()
                if last:
                    return self._memory.revision

    async def match(self, prompts: tuple[str, ...]) -> tuple[Match, ...]:
        """Decide which edit, if any, answers each prompt, beside the active version.

        Raises:
            VersionUnavailable: The active version could not be loaded here.
        """
        found = [_settled(one) for one in await self._decisions.decide([Question(prompt) for prompt in prompts])]
        return tuple(replace(one.verdict.match, version=one.version.id) for one in found)

    async def generate(self, request: GenerationRequest) -> Generation:
        """Answer a prompt: by the edit in whose scope it is, or by a version (Mitchell et al. 2022, sec. 3).

        Raises:
            PromptTooLong: Prompt and answer do not fit in the context.
            NoChatTemplate: Messages were sent to a base that has no chat template.
            VersionNotFound: No such version.
            VersionUnavailable: The version that should answer could not be loaded here.
            NotCaughtUp: `min_revision` was not reached in time.
            QueueFull: As many requests wait for the model as may.
            EngineFailed: The model failed; it is being brought back.
            And as `load`, where the request names a version.
        """
        began = time.perf_counter()
        return await self._answered(request, await self._chosen(request), began)

    async def stream(self, request: GenerationRequest) -> Stream:
        """Answer a prompt piece by piece, with the text that `generate` gives; raises as it does."""
        began = time.perf_counter()
        chosen = await self._chosen(request)
        pieces = await self._answers.stream(request, chosen.version, chosen.edit)
        return stream_of(chosen, pieces, began=began, stripped=request.stripped)

    async def _chosen(self, request: GenerationRequest) -> Chosen:
        """What answers a request."""
        named = None if request.version == ACTIVE else await self._versions.version(request.version)
        if request.min_revision is not None:
            await self._wait_for(request.min_revision)
        if request.edits:
            question = Question(question_of(request), key=request.key, version=named)
            (decided,) = await self._decisions.decide((question,))
            return chosen_by(_settled(decided))
        moment = self._state.moment
        return Chosen(named or moment.serving.version_for(request.key), moment.revision)

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
            VersionUnavailable: The active version could not be loaded here.
        """
        return await self._previewer.preview(descriptor, embeddings, probes, without=without, sampling=sampling)

    async def _decided(self, request: GenerationRequest, decided: Decided) -> Generation:
        """The answer, once it is decided what gives it."""
        return await self._answered(request, chosen_by(decided), time.perf_counter())

    async def _answered(self, request: GenerationRequest, chosen: Chosen, began: float) -> Generation:
        completion = await self._answers.answer(request, chosen.version, chosen.edit)
        return generation_of(chosen, completion, began=began, stripped=request.stripped)

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
        moment = self._state.moment
        serving = moment.serving.serving
        return RuntimeInfo(
            **asdict(self._traits),
            context_length=self._base.context_length,
            version=serving.active,
            canary=serving.canary,
            percent=serving.percent,
            problem=moment.serving.problem,
            failure=self._failure(),
            revision=moment.revision,
            edits=len(self._memory),
            baked=moment.baked,
            memory=self._memory.figures(),
        )

    def backlog(self) -> Backlog:
        """Requests that the model is at, of whatever version, and that wait for it."""
        return backlog_of(self._lines)

    def _failure(self) -> str | None:
        engines = (self._engine, self._reader, *(live.engine for live in self._state.moment.serving.versions.values()))
        return next((engine.problem for engine in engines if engine.problem is not None), None)

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

    async def _read(self) -> tuple[tuple[StoredEdit, ...], int, Serving]:
        """The edits in force that are still to be installed, the revision at which they are, and what is served then.

        See `snapshot` for those that need not be installed.
        """
        saved = None if self._file is None else await asyncio.to_thread(self._file.read, self._memory.encoder)
        async with self._store.reading() as reading:
            revision, serving = await reading.changes.revision(), await reading.serving.now()
            if saved is None or saved.revision > revision:
                return await reading.edits.active(), revision, serving
            edits = await reading.edits.in_force()
            lacking = await self._memory_owner.run(self._memory.restore, saved, edits)
            return await reading.edits.with_ids(lacking), revision, serving

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


def _settled(decided: Decided | VersionUnavailable) -> Decided:
    if isinstance(decided, VersionUnavailable):
        raise decided
    return decided
