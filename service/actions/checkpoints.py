"""Checkpoints: list, show and export versions, and keep what they are made of in order."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.actions.services import Services
from service.domain.versions import BASE_VERSION, ExportFormat, Version, VersionPage
from service.errors import ArtifactDamaged, BaseMismatch, ErrataError, NothingToExport, VersionNotFound

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A version, and whether it can be used.

    Attributes:
        damage: What is wrong with its weights, in a sentence; None when they are whole.
    """

    version: Version
    damage: str | None = None


async def read(services: Services, version_id: str) -> Shown:
    """The version of that id, its weights verified.

    Raises:
        VersionNotFound: There is none.
    """
    version = await _found(services, version_id)
    if version.artifact is None:
        return Shown(version=version)
    try:
        await services.artifacts.verify(version.artifact, owner=version.id)
    except ArtifactDamaged as error:
        return Shown(version=version, damage=error.detail)
    return Shown(version=version)


async def page(services: Services, *, limit: int, after: str | None) -> VersionPage:
    """Versions older than the id `after`, newest first; v0, the base, is the last of all."""
    async with services.store.reading() as reading:
        found = await reading.versions.page(limit=limit, after=after)
    if found.has_more or after == BASE_VERSION:
        return found
    if len(found.data) == limit:
        return VersionPage(data=found.data, has_more=True)
    return VersionPage(data=(*found.data, await _base(services)), has_more=False)


@asynccontextmanager
async def export(services: Services, version_id: str, kind: ExportFormat) -> AsyncIterator[Path]:
    """The folder of a version as others load it, for the length of the block.

    Raises:
        VersionNotFound: There is none of that id.
        NothingToExport: It is the base.
        BaseMismatch: It was made for another base model than the one that is loaded.
        ArtifactDamaged: Its weights are missing or corrupted.
        StorageFull: There is no room for the folder.
    """
    version = await _found(services, version_id)
    if version.artifact is None:
        raise NothingToExport(f"{version_id} is the base model, {version.base.name}.")
    if (loaded := await services.baker.base()).fingerprint != version.base.fingerprint:
        raise BaseMismatch(
            f"{version_id} was made for {version.base.name} ({version.base.fingerprint[:12]}), and {loaded.name} "
            f"({loaded.fingerprint[:12]}) is loaded."
        )
    with tempfile.TemporaryDirectory(prefix="errata-") as folder:
        async with services.artifacts.fetch(version.artifact, owner=version.id) as file:
            await services.baker.export(version, file, kind, Path(folder))
        yield Path(folder)


async def collect(services: Services) -> None:
    """Remove artifacts that no version names and no bake is about to name, and what was left half written."""
    async with services.store.recording() as recording:
        removed = await services.artifacts.collect(*await recording.bakes.artifacts())
    if removed:
        _log.info("artifacts collected", removed=len(removed))


async def audit(services: Services) -> None:
    """Collect, then verify the weights of every version and log by name those that are damaged."""
    try:
        await collect(services)
        async with services.store.reading() as reading:
            artifacts = await reading.versions.artifacts()
        for version_id, artifact in artifacts:
            try:
                await services.artifacts.verify(artifact, owner=version_id)
            except ArtifactDamaged as error:
                _log.error("damaged version", version=version_id, detail=error.detail)
    except ErrataError as error:
        _log.warning("the versions could not be audited", detail=error.detail)


async def _found(services: Services, version_id: str) -> Version:
    if version_id == BASE_VERSION:
        return await _base(services)
    async with services.store.reading() as reading:
        version = await reading.versions.get(version_id)
    if version is None:
        raise VersionNotFound(f"There is no version {version_id}.")
    return version


async def _base(services: Services) -> Version:
    return Version(id=BASE_VERSION, base=await services.baker.base())
