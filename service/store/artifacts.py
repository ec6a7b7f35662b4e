"""Artifacts in a folder or an object store, whatever fsspec reaches: one file each, under the hash of its content.

A file is written under another name, synced, and moved to its own, so that a name stands for a whole file or for none.
What is handed out is a copy that was hashed while it was made.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from service.domain.artifacts import Artifact
from service.errors import ArtifactDamaged, ArtifactsUnavailable, ErrataError, StartupError, StorageFull

SUFFIX = ".safetensors"
_INCOMING = "incoming"
"""The folder of what is being written."""
_OURS = re.compile(rf"(?P<place>({_INCOMING}/)?)(?P<digest>[0-9a-f]{{64}})(-[0-9a-f]{{32}})?{re.escape(SUFFIX)}")
"""Paths below the root that are never anybody else's."""
_CHUNK = 1 << 20


class ArtifactStore:
    """Keeps artifacts under a URL; see `service.domain.artifacts.Artifacts`.

    Args:
        url: A folder, or any URL that fsspec knows, such as `s3://bucket/errata`.

    Raises:
        StartupError: fsspec does not know the URL, or lacks the package for it, or nothing can be written there.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
            self._files.makedirs(self._path(_INCOMING), exist_ok=True)
        except Exception as error:  # whatever its many file systems raise
            raise StartupError(
                f"Artifacts cannot be kept in {_without_secrets(url)}: {_reason(error)}.",
                hint="Set ERRATA_ARTIFACTS_URL to a folder or a URL that fsspec can write to.",
            ) from error

    async def describe(self, file: Path) -> Artifact:
        """What a file is called once it is kept; keeps nothing."""
        return await asyncio.to_thread(_describe, file)

    async def put(self, file: Path, artifact: Artifact) -> None:
        """Keep a file. It is there under its name as a whole or not at all; one that is there already is left alone.

        Raises:
            StorageFull: There is no room for it.
            ArtifactsUnavailable: The place does not answer.
        """
        await asyncio.to_thread(self._put, file, artifact)

    @asynccontextmanager
    async def fetch(self, artifact: Artifact, *, owner: str) -> AsyncIterator[Path]:
        """A copy for the length of the block, verified. `owner` is whose it is, for the error.

        Raises:
            ArtifactDamaged: It is missing, or has another content than its name says.
            StorageFull: There is no room for the copy.
            ArtifactsUnavailable: The place does not answer.
        """
        with tempfile.TemporaryDirectory(prefix="errata-") as folder:
            copy = Path(folder) / f"{artifact.digest}{SUFFIX}"
            await asyncio.to_thread(self._fetch, artifact, owner, copy)
            yield copy

    async def verify(self, artifact: Artifact, *, owner: str) -> None:
        """Read it and compare.

        Raises:
            ArtifactDamaged: It is missing, or has another content than its name says.
            ArtifactsUnavailable: The place does not answer.
        """
        await asyncio.to_thread(self._fetch, artifact, owner, Path(os.devnull))

    async def collect(self, named: Collection[str], claimed: Collection[str]) -> tuple[str, ...]:
        """Remove every artifact but these, and what was left half written of those that are not claimed.

        Raises:
            ArtifactsUnavailable: The place does not answer.
        """
        return await asyncio.to_thread(self._collect, frozenset(named), frozenset(claimed))

    def _put(self, file: Path, artifact: Artifact) -> None:
        with suppress(ArtifactDamaged):
            self._fetch(artifact, "nobody", Path(os.devnull))
            return
        incoming = self._path(_INCOMING, f"{artifact.digest}-{uuid4().hex}{SUFFIX}")
        with self._translated():
            try:
                with file.open("rb") as source, self._files.open(incoming, "wb") as target:
                    _copy(source, target)
                    self._sync(target)
                if self._files.size(incoming) != artifact.size:
                    raise OSError(errno.EIO, "it was not written whole")  # noqa: TRY301 -- like any failure to write
                self._files.mv(incoming, self._path(f"{artifact.digest}{SUFFIX}"))
                self._sync_root()
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(incoming)
                raise

    def _fetch(self, artifact: Artifact, owner: str, copy: Path) -> None:
        name = f"The artifact {artifact.digest[:12]} of {owner}"
        with self._translated():
            try:
                with self._files.open(self._path(f"{artifact.digest}{SUFFIX}"), "rb") as source, copy.open("wb") as out:
                    digest = _copy(source, out)
            except FileNotFoundError:
                raise ArtifactDamaged(f"{name} is missing.", extra={"artifact": artifact.digest}) from None
        if digest != artifact.digest:
            raise ArtifactDamaged(
                f"{name} is corrupted: its content has the hash {digest[:12]}.", extra={"artifact": artifact.digest}
            )

    def _collect(self, named: frozenset[str], claimed: frozenset[str]) -> tuple[str, ...]:
        kept = {"": named | claimed, f"{_INCOMING}/": claimed}
        removed = []
        with self._translated():
            self._files.invalidate_cache()
            for folder in (self._root, self._path(_INCOMING)):
                for path in self._files.find(folder, maxdepth=1):
                    name = path.removeprefix(self._path(""))
                    ours = _OURS.fullmatch(name)
                    if ours and ours["digest"] not in kept[ours["place"]]:
                        self._files.rm_file(path)
                        removed.append(name)
        return tuple(sorted(removed))

    def _path(self, *names: str) -> str:
        return "/".join((self._root, *names))

    def _sync(self, file: Any) -> None:
        """Have the disk itself hold what was written; elsewhere that is the place's own promise."""
        if isinstance(self._files, LocalFileSystem):
            file.flush()
            os.fsync(file.fileno())

    def _sync_root(self) -> None:
        """Have the disk itself hold the name."""
        if isinstance(self._files, LocalFileSystem):
            descriptor = os.open(self._root, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what file systems raise into our errors."""
        try:
            yield
        except ErrataError:
            raise
        except Exception as error:
            if StorageFull.is_meant_by(error):
                raise StorageFull(f"There is no room for an artifact: {_reason(error)}.") from error
            raise ArtifactsUnavailable(f"The artifact store does not answer: {_reason(error)}.") from error


def _describe(file: Path) -> Artifact:
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    return Artifact(digest=digest, size=file.stat().st_size)


def _copy(source: Any, target: IO[bytes]) -> str:
    """Copy, and hash what was copied."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return " ".join(words.split()).rstrip(".")


def _without_secrets(url: str) -> str:
    """A URL without what may stand between its scheme and its host."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else url
