"""The versions that can answer here: the base, and views of it with the deltas of others in their weights.

A view owns the edited weights alone, so a version costs their memory and the base is never written to. A request keeps
the version that it was given, so one that is put away meanwhile still answers it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace

import structlog

from editors import delta_files
from editors.delta import install
from editors.errors import DeltaMismatch, InvalidDeltaFile
from editors.model.layouts import MOST_BYTES, Layouts
from editors.model.loading import BaseModel
from service.domain.artifacts import Artifact, Artifacts
from service.domain.ports import Store
from service.domain.serving import Serving
from service.domain.versions import BASE_VERSION, BakedEdit, Version
from service.errors import (
    ArtifactDamaged,
    BaseMismatch,
    ErrataError,
    VersionNotFound,
    VersionUnavailable,
    WeightsElsewhere,
)
from service.runtime.adapters import AdapterEngine, Adapters
from service.runtime.engine import Engine, TransformersEngine
from service.runtime.line import Line
from service.runtime.owner import Owner
from service.runtime.upstream import UpstreamEngine

SPARE = 2
"""Versions kept ready beside those that are served, since somebody asked for them by name."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class LiveVersion:
    """A version that can answer.

    Attributes:
        id: Such as `v3`.
        engine: Generates with its weights.
        edits: What its weights contain, which the memory leaves to them.
    """

    id: str
    engine: Engine
    edits: frozenset[BakedEdit] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class LiveServing:
    """What is served here.

    Attributes:
        serving: By which rule.
        versions: Those of its versions that can answer, by name.
        problem: Why that is not what should be served, in a sentence; None when it is.
    """

    serving: Serving
    versions: dict[str, LiveVersion]
    problem: str | None = None

    @property
    def active(self) -> LiveVersion:
        """The active version.

        Raises:
            VersionUnavailable: It could not be loaded.
        """
        return self._live(self.serving.active)

    def version_for(self, key: str) -> LiveVersion:
        """The version that answers a caller.

        Raises:
            VersionUnavailable: It could not be loaded.
        """
        return self._live(self.serving.version_for(key))

    def _live(self, version_id: str) -> LiveVersion:
        if version_id not in self.versions:
            raise VersionUnavailable(f"{version_id} should answer. {self.problem}", extra={"version": version_id})
        return self.versions[version_id]


class LiveVersions:
    """Loads versions. Belongs to one event loop.

    Args:
        base: The frozen base model, or a server that holds it.
        store: Where versions are described.
        artifacts: Where their deltas are kept.
        owner: The thread of the model, on which views are made, between two turns.
        line: In which requests to any version wait.
        layout_bytes: Memory for weights laid out for quick products.
        adapters: How a server that holds the base is given versions; None where it serves none.

    Attributes:
        base: The base itself, as a version.
        laid_out: How much of that memory is taken.
    """

    def __init__(
        self,
        base: BaseModel | UpstreamEngine,
        store: Store,
        artifacts: Artifacts,
        *,
        owner: Owner,
        line: Line,
        layout_bytes: int = MOST_BYTES,
        adapters: Adapters | None = None,
    ) -> None:
        self._adapters = adapters
        self._model = base if isinstance(base, BaseModel) else None
        self._layouts = Layouts(base, most_bytes=layout_bytes) if isinstance(base, BaseModel) else None
        self._owner = owner
        self._line = line
        engine = self._engine(base) if isinstance(base, BaseModel) else base
        self.base = LiveVersion(BASE_VERSION, engine)
        self.laid_out = 0 if self._layouts is None else self._layouts.size
        self._store = store
        self._artifacts = artifacts
        self._loaded: OrderedDict[str, LiveVersion] = OrderedDict()
        self._serving: tuple[str, ...] = ()
        self._loading = asyncio.Lock()

    async def version(self, version_id: str) -> LiveVersion:
        """A version, ready to answer; its artifact is verified on the way to memory.

        Raises:
            VersionNotFound: There is none of that id.
            BaseMismatch: It was made for another base model.
            WeightsElsewhere: The base is elsewhere, on a server that is given no versions.
            NoAdapter: It is elsewhere, and the version is no LoRA adapter.
            AdapterRefused, and as `UpstreamEngine.write`: The server there does not load it.
            ArtifactDamaged: Its weights are missing or corrupted.
            ArtifactsUnavailable, StorageFull: They cannot be read now.
        """
        if version_id == BASE_VERSION:
            return self.base
        async with self._loading:
            if version_id not in self._loaded:
                self._loaded[version_id] = await self._load(version_id)
            self._loaded.move_to_end(version_id)
            self._put_away()
            return self._loaded[version_id]

    def serves(self, version: Version) -> bool:
        """Whether a version may be asked for here, by what is known of it."""
        if self._model is not None:
            return True
        return self._adapters is not None and self._adapters.serves(version)

    async def serve(self, wanted: Serving, before: LiveServing | None) -> LiveServing:
        """What is served from now on: `wanted` when all its versions can answer, else what was, with the problem."""
        if before is not None and before.serving == wanted and before.problem is None:
            return before
        versions, problems = {}, []
        for version_id in wanted.answering:
            try:
                versions[version_id] = await self.version(version_id)
            except ErrataError as error:
                problems.append(f"{version_id} cannot be served here: {error.detail}")
        if not problems:
            self._serving = wanted.answering
            return LiveServing(wanted, versions)
        problem = " ".join(problems)
        if before is None or before.problem != problem:
            _log.error("a version that should answer cannot", detail=problem)
        stands = before is not None and before.serving.active in before.versions
        return replace(before, problem=problem) if before and stands else LiveServing(wanted, versions, problem)

    def _put_away(self) -> None:
        """Keep those that are served, and the few asked for last."""
        spare = [version_id for version_id in self._loaded if version_id not in self._serving]
        for version_id in spare[:-SPARE]:
            engine = self._loaded.pop(version_id).engine
            if self._adapters is not None and isinstance(engine, AdapterEngine):
                self._adapters.put_away(engine)

    async def _load(self, version_id: str) -> LiveVersion:
        async with self._store.reading() as reading:
            version = await reading.versions.get(version_id)
        if version is None or version.artifact is None:
            raise VersionNotFound(f"There is no version {version_id!r}.")
        if (base := self._model) is None:
            return await self._load_elsewhere(version, version.artifact)
        fingerprint = await asyncio.to_thread(lambda: base.fingerprint)
        if version.base.fingerprint != fingerprint:
            raise BaseMismatch(
                f"{version_id} was made for {version.base.name} ({version.base.fingerprint[:12]}), and {base.name} "
                f"({fingerprint[:12]}) is loaded."
            )
        async with self._artifacts.fetch(version.artifact, owner=version_id) as file:
            try:
                delta = await asyncio.to_thread(delta_files.load, file, base)
            except DeltaMismatch as error:
                raise BaseMismatch(error.detail, hint=error.hint) from error
            except InvalidDeltaFile as error:
                raise ArtifactDamaged(f"The delta of {version_id} cannot be read: {error.detail}") from error
        return await self._owner.run(
            lambda: LiveVersion(
                version_id, self._engine(replace(base, model=install(base, delta))), frozenset(version.edits)
            )
        )

    async def _load_elsewhere(self, version: Version, artifact: Artifact) -> LiveVersion:
        if self._adapters is None:
            raise WeightsElsewhere(
                f"{version.id} changes weights of the base model, which answers from another server.",
                hint="The operator sets ERRATA_ADAPTERS where that server loads LoRA adapters; docs/upstream.md says "
                "more.",
            )
        self._adapters.refuse_other(version)
        async with self._artifacts.fetch(artifact, owner=version.id) as file:
            engine = await self._adapters.load(version, file)
        return LiveVersion(version.id, engine, frozenset(version.edits))

    def _engine(self, model: BaseModel) -> Engine:
        assert self._layouts is not None, "its base is here"
        return TransformersEngine(self._layouts.served(model), owner=self._owner, line=self._line)
