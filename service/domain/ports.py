"""The rooms behind the actions, as the actions see them: the store and the runtime.

Their neighbours are in `artifacts` (files by content) and `bake_plans` (what makes deltas).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from service.domain.bakes import BakeReader, BakeWriter
from service.domain.census import Census
from service.domain.changes import ChangeReader
from service.domain.edits import Descriptor, EditReader, EditWriter, Embeddings
from service.domain.evaluations import EvaluationReader, EvaluationReport, EvaluationRequest, EvaluationWriter
from service.domain.generations import Generation, GenerationRequest, Sampling, Stream
from service.domain.keys import KeyReader, KeyWriter
from service.domain.matches import Match
from service.domain.previews import Probed
from service.domain.receipts import Receipt, ReceiptReader, ReceiptWriter
from service.domain.serving import ServingReader, ServingWriter
from service.domain.versions import Version, VersionReader, VersionWriter
from service.errors import EditTooLong

Progress = Callable[[int], Awaitable[bool]]
"""Told how many probes have been judged; answers whether to go on."""


class Reading(Protocol):
    """One read-only transaction on one snapshot."""

    @property
    def edits(self) -> EditReader:
        """The edits of the snapshot."""
        ...

    @property
    def evaluations(self) -> EvaluationReader:
        """The evaluations of the snapshot."""
        ...

    @property
    def bakes(self) -> BakeReader:
        """The bakes of the snapshot."""
        ...

    @property
    def versions(self) -> VersionReader:
        """The versions of the snapshot."""
        ...

    @property
    def serving(self) -> ServingReader:
        """What the snapshot has be served."""
        ...

    @property
    def changes(self) -> ChangeReader:
        """The log up to this transaction."""
        ...

    @property
    def keys(self) -> KeyReader:
        """The API keys of the snapshot."""
        ...

    @property
    def receipts(self) -> ReceiptReader:
        """The receipts of the snapshot."""
        ...

    async def census(self) -> Census:
        """How many edits there are."""
        ...


class Writing(Protocol):
    """One transaction that holds the write lock: it commits when the block ends, and leaves no trace when it raises."""

    @property
    def edits(self) -> EditWriter:
        """The edits, to read and to change."""
        ...

    @property
    def bakes(self) -> BakeWriter:
        """The bakes, to read and to change."""
        ...

    @property
    def versions(self) -> VersionWriter:
        """The versions, to read and to add to."""
        ...

    @property
    def serving(self) -> ServingWriter:
        """What is served, to read and to change."""
        ...

    @property
    def changes(self) -> ChangeReader:
        """The log up to this transaction."""
        ...


class Recording(Protocol):
    """One transaction on what alters no answer. It takes no write lock, so it neither waits for editors nor stops them.

    It commits when the block ends, and leaves no trace when it raises.
    """

    @property
    def evaluations(self) -> EvaluationWriter:
        """The evaluations, to read and to change."""
        ...

    @property
    def bakes(self) -> BakeWriter:
        """The bakes, to read and to change."""
        ...

    @property
    def keys(self) -> KeyWriter:
        """The API keys, to read, make and revoke."""
        ...

    @property
    def receipts(self) -> ReceiptWriter:
        """The receipts, to forget."""
        ...


class Store(Protocol):
    """The truth, in PostgreSQL.

    Every method may raise `StoreUnavailable`.
    """

    def reading(self) -> AbstractAsyncContextManager[Reading]:
        """Open a read-only transaction."""
        ...

    def writing(self, *, actor: str, receipt: Receipt | None = None) -> AbstractAsyncContextManager[Writing]:
        """Open a transaction under the write lock; its changes are signed by `actor`.

        It begins by recording the edits that have expired since the last one. A `receipt`, which the block settles,
        commits with it.

        Raises:
            AlreadyAnswered: The receipt's request was answered before; the block is not entered.
            IdempotencyKeyReused: Its key came with another body; likewise.
        """
        ...

    def recording(self, *, receipt: Receipt | None = None) -> AbstractAsyncContextManager[Recording]:
        """Open a transaction on what alters no answer; `receipt` is as for `writing`."""
        ...

    async def migration(self) -> tuple[str | None, str]:
        """The migration the database is at, and the one the code needs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo:
    """What is being served.

    Attributes:
        model: The base model's id or folder name, or its name on the server that holds it.
        upstream: The address of that server; None where the base is here.
        architecture: Its `model_type`; None elsewhere, as are `parameters`, `device` and `dtype`.
        context_length: In tokens; None where the server has not said.
        version: The version that is active.
        canary: The version that answers a share of the questions, or None.
        percent: That share; 0 without a canary.
        problem: Why this replica cannot serve what it should; None when it does.
        failure: Why the model does not answer now; None when it does.
        edits: Edits in force in the live memory.
        baked: How many of those the active version answers from its weights.
        memory: Further figures of the memory (encoder, width, rows).
    """

    model: str
    upstream: str | None = None
    architecture: str | None
    parameters: int | None
    device: str | None
    dtype: str | None
    context_length: int | None
    version: str
    canary: str | None
    percent: int
    problem: str | None
    failure: str | None
    revision: int
    edits: int
    baked: int
    memory: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Requests that the model is at, and that wait for it."""

    running: int
    waiting: int


class Runtime(Protocol):
    """What holds the model and the live memory."""

    async def prepare(self, descriptor: Descriptor) -> Embeddings:
        """Check that an edit can be served and embed its texts. Leaves no trace.

        Raises:
            EditTooLong: It leaves no room for a question in the model's context.
        """
        ...

    async def unfit(self, descriptors: Sequence[Descriptor]) -> Mapping[int, EditTooLong]:
        """Which of many edits `prepare` would refuse, by their places, and why."""
        ...

    def prepare_many(self, descriptors: Sequence[Descriptor]) -> AsyncIterator[Sequence[Embeddings]]:
        """Embed the texts of many edits, some at a time, between other requests. Leaves no trace."""
        ...

    async def preview(
        self,
        descriptor: Descriptor,
        embeddings: Embeddings,
        probes: Sequence[str],
        *,
        without: frozenset[str],
        sampling: Sampling,
    ) -> Sequence[Probed]:
        """Answer each probe as things are, and with a prepared edit in the place of some others. Leaves no trace.

        Raises:
            PromptTooLong: A probe and its answer do not fit in the context.
        """
        ...

    async def load(self, version_id: str) -> None:
        """Make a version ready to answer here. Leaves no other trace.

        Raises:
            VersionNotFound: There is none of that id.
            BaseMismatch: It was made for another base model than the one that is loaded.
            ArtifactDamaged: Its weights are missing or corrupted.
            ArtifactsUnavailable: They cannot be read now.
            StorageFull: There is no room for a copy of its file.
            WeightsElsewhere, NoAdapter, AdapterRefused: The base is elsewhere, where it cannot be served.
        """
        ...

    def serves(self, version: Version) -> bool:
        """Whether a version may be asked for here, by what is known of it."""
        ...

    async def catch_up(self) -> int:
        """Install every change committed so far, whoever made it; return the revision reached.

        A version that should answer and cannot be loaded is named in `info().problem`; what answered before goes on.
        """
        ...

    async def match(self, prompts: tuple[str, ...]) -> tuple[Match, ...]:
        """Decide which edit, if any, answers each prompt."""
        ...

    async def generate(self, request: GenerationRequest) -> Generation:
        """Answer a prompt.

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
        ...

    async def stream(self, request: GenerationRequest) -> Stream:
        """Answer a prompt piece by piece, with the text that `generate` gives; raises as it does."""
        ...

    async def plan(self, request: EvaluationRequest) -> int:
        """How many probes an evaluation judges; says no before anything is queued.

        Raises:
            UnknownSuite, UnknownMetric, UnknownSubject: Nothing has that name.
            MetricUnavailable: The cases lack a field that a metric asked for needs.
            NothingToEvaluate: There is no probe: no case, or no edit in force.
            EditNotFound: An edit named is not in force.
        """
        ...

    async def evaluate(self, request: EvaluationRequest, *, progress: Progress) -> EvaluationReport | None:
        """Judge every probe, between other requests; None when `progress` said to stop.

        Raises:
            As `plan`, and
            EditTooLong: An edit of a case leaves no room in the model's context.
        """
        ...

    def info(self) -> RuntimeInfo:
        """What is being served now."""
        ...

    def backlog(self) -> Backlog:
        """How busy the model is."""
        ...
