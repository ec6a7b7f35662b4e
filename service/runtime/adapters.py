"""Versions of a base elsewhere: LoRA adapters that its server loads from a folder by name, as vLLM does.

A version's adapter is written once, under a name that holds the hash of its weights, and never changed. Not covered:
whether that server holds the base that a version was made for, of which there is only the operator's word.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

import structlog

from editors.delta import LowRank
from editors.delta_files import load_unchecked, write_adapter
from editors.errors import InvalidDeltaFile
from service.domain.generations import Sampling
from service.domain.versions import Version
from service.errors import (
    AdapterRefused,
    ArtifactDamaged,
    ArtifactsUnavailable,
    BaseMismatch,
    ErrataError,
    NoAdapter,
    RequestError,
    StorageFull,
    UpstreamBusy,
    UpstreamInvalid,
    UpstreamRefused,
)
from service.runtime.completions import Completion, Pieces, Prompt
from service.runtime.upstream import SECONDS_BETWEEN_LOOKS, UpstreamEngine

_LOADED = re.compile(r"already (been )?loaded", re.IGNORECASE)
"""How a server says that it has the adapter: another replica was quicker, or this one was here before."""
_CONFIG = "adapter_config.json"
_HASH_CHARACTERS = 16

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class AdapterEngine:
    """Implements `Engine` with one version on a server elsewhere.

    A server that no longer has the adapter, since it has been started anew, is asked to load it again.

    Args:
        server: Holds the base.
        name: Of the adapter there.
        folder: From which it is loaded.
    """

    def __init__(self, server: UpstreamEngine, name: str, folder: Path) -> None:
        self.name = name
        self._server = server
        self._folder = folder
        self._lost: str | None = None

    @property
    def problem(self) -> str | None:
        """Why it does not answer now; None when it does."""
        return self._server.problem or self._lost

    @property
    def is_here(self) -> bool:
        """It is not."""
        return False

    @property
    def converses(self) -> bool:
        """As its base does."""
        return self._server.converses

    async def warm_up(self) -> None:
        """See how the server is; a prompt might cost money."""
        await self.look()

    async def write(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Answer a prompt; see `UpstreamEngine.write`."""
        return await self._restoring(lambda: self._server.write(prompt, sampling, model=self.name))

    async def stream(self, prompt: Prompt, sampling: Sampling) -> Pieces:
        """Answer a prompt piece by piece; see `UpstreamEngine.stream`."""
        return await self._restoring(lambda: self._server.stream(prompt, sampling, model=self.name))

    async def _restoring(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the server says; where it refuses, for having lost the adapter, once more with that loaded."""
        try:
            return await ask()
        except UpstreamRefused:
            if not await self._restored():
                raise
        return await ask()

    async def load(self) -> None:
        """Have the server load it.

        Raises:
            AdapterRefused: It does not.
            UpstreamUnavailable, UpstreamTimeout, UpstreamBusy: It does not answer now.
        """
        try:
            await self._server.do("/load_lora_adapter", {"lora_name": self.name, "lora_path": str(self._folder)})
        except UpstreamBusy:
            raise
        except (RequestError, UpstreamRefused, UpstreamInvalid) as error:
            if not _LOADED.search(error.detail):
                raise AdapterRefused(f"{self.name} is not loaded from {self._folder}: {error.detail}") from error
        _log.info("an adapter is loaded elsewhere", adapter=self.name, url=self._server.url)

    async def unload(self) -> None:
        """Have the server forget it, if it answers; who still asks for it has it loaded again."""
        with suppress(ErrataError):
            await self._server.do("/unload_lora_adapter", {"lora_name": self.name})

    async def look(self) -> None:
        """See whether the server still has it, and have it loaded again if not."""
        await self._server.look()
        self._lost = None
        if self._server.problem is None and self.name not in self._server.listed:
            try:
                await self.load()
            except ErrataError as error:
                self._lost = error.detail

    async def _restored(self) -> bool:
        """Whether it is worth asking the server once more."""
        await self.look()
        return self.problem is None


class Adapters:
    """Has a server load versions. Belongs to one event loop.

    Args:
        server: Holds the base.
        folder: Seen by that server under the same path.
        fingerprint: Of the weights that the operator says it holds.
    """

    def __init__(self, server: UpstreamEngine, folder: Path, fingerprint: str) -> None:
        self._server = server
        self._folder = folder
        self._fingerprint = fingerprint
        self._kept: WeakSet[AdapterEngine] = WeakSet()

    def serves(self, version: Version) -> bool:
        """Whether a version can be an adapter there, by what is known of it."""
        sites = () if version.report is None else version.report.sites
        return version.base.fingerprint == self._fingerprint and all(site.rank is not None for site in sites)

    def refuse_other(self, version: Version) -> None:
        """Check that a version was made for the weights that the server holds.

        Raises:
            BaseMismatch: It was made for others.
        """
        if version.base.fingerprint != self._fingerprint:
            raise BaseMismatch(
                f"{version.id} was made for {version.base.name} ({version.base.fingerprint[:12]}), and "
                f"ERRATA_BASE_FINGERPRINT says that the server holds {self._fingerprint[:12]}."
            )

    async def load(self, version: Version, file: Path) -> AdapterEngine:
        """Write the adapter of a version whose delta is in `file`, and have the server load it.

        Raises:
            ArtifactDamaged: The file holds no delta of this base.
            NoAdapter: The delta is not of low rank.
            StorageFull, ArtifactsUnavailable: The adapter cannot be written.
            AdapterRefused, and as `UpstreamEngine.write`: The server does not load it.
        """
        assert version.artifact is not None, "it was baked"
        name = f"{version.id}-{version.artifact.digest[:_HASH_CHARACTERS]}"
        folder = self._folder / name
        await asyncio.to_thread(self._write, version, file, folder)
        engine = AdapterEngine(self._server, name, folder)
        await engine.load()
        self._kept.add(engine)
        return engine

    def put_away(self, engine: AdapterEngine) -> None:
        """Let the server forget a version that nobody is served here any more."""
        self._kept.discard(engine)
        self._server.keep(engine.unload())

    async def watch(self) -> None:
        """See again and again whether the server still has what it was asked to load, until cancelled."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            for engine in list(self._kept):
                await engine.look()

    def _write(self, version: Version, file: Path, folder: Path) -> None:
        if (folder / _CONFIG).is_file():
            return  # it came into its place as a whole
        try:
            delta = load_unchecked(file)
        except InvalidDeltaFile as error:
            raise ArtifactDamaged(f"The delta of {version.id} cannot be read: {error.detail}") from error
        if delta.base != version.base.fingerprint:
            raise ArtifactDamaged(f"The delta of {version.id} is one of another base model.")
        if dense := sorted(site for site, change in delta.changes.items() if not isinstance(change, LowRank)):
            raise NoAdapter(f"{version.id} changes {dense[0]} by a dense matrix, which no LoRA adapter holds.")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
                made = Path(scratch) / folder.name
                write_adapter(delta, made, base_name=version.base.name)
                _put(made, folder)
        except OSError as error:
            if StorageFull.is_meant_by(error):
                raise StorageFull(f"There is no room for an adapter: {error.strerror}.") from error
            raise ArtifactsUnavailable(
                f"The adapter of {version.id} cannot be written: {error.strerror}.",
                hint="The operator checks the folder ERRATA_ADAPTERS.",
            ) from error


def _put(made: Path, folder: Path) -> None:
    """Move a folder into its place, unless another replica was quicker."""
    try:
        made.rename(folder)
    except OSError:
        if not (folder / _CONFIG).is_file():
            raise
