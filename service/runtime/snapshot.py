"""The memory's snapshot: a file that spares the next start reading every embedding and building the index.

The database is the truth. An embedding is taken from the file only for an edit that the database holds, when the same
encoder made it from the very same texts; so a file that is old, foreign or from another history can lack embeddings,
but never bring back an edit or answer for another.
"""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from editors.serac.memory import EditMemory, EditTexts

LEAST_EDITS = 10_000
"""Fewer are read from the database as quickly."""
SECONDS_BETWEEN_SAVES = 900.0
_DIGEST_BYTES = 16

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryState:
    """A memory at a revision; nothing changes it."""

    memory: EditMemory
    revision: int
    encoder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMemory:
    """What a snapshot holds.

    Attributes:
        revision: Of the database when it was taken.
        digests: Of each edit's texts, by its number.
        arrays: The embeddings and their index, as `EditMemory.arrays` gave them.
    """

    revision: int
    digests: dict[int, bytes]
    arrays: dict[str, NDArray[Any]]


class MemoryFile:
    """The file that keeps the snapshot.

    Args:
        path: Where; replaced as a whole, so that it is never half written.
        least_edits: Smaller memories are not worth a file.
    """

    def __init__(self, path: Path, *, least_edits: int = LEAST_EDITS) -> None:
        self._path = path
        self._least_edits = least_edits
        self._revision: int | None = None

    def read(self, encoder: str) -> SavedMemory | None:
        """What was saved with this encoder; None when there is no such file, or it is damaged."""
        try:
            with self._path.open("rb") as opened, NpzFile(opened, allow_pickle=False) as file:
                if str(file["encoder"]) != encoder:
                    return None
                arrays = {name: file[name] for name in file.files if name != "encoder"}  # each has its CRC-32 checked
            ids, digests = arrays.pop("ids"), arrays.pop("digests")
            saved = SavedMemory(
                revision=int(arrays.pop("revision")),
                digests={number: bytes(digest) for number, digest in zip(ids.tolist(), digests, strict=True)},
                arrays=arrays,
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            _log.warning(
                "the memory's snapshot cannot be read; starting without it", file=str(self._path), error=str(error)
            )
            return None
        self._revision = saved.revision
        return saved

    def due(self, edits: int, revision: int) -> bool:
        """Whether a memory of that size and revision should be written."""
        return edits >= self._least_edits and revision != self._revision

    def write(self, state: MemoryState) -> None:
        """Replace the file. A disk that cannot take it is logged: serving does not depend on it."""
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                _save(unfinished, state)
                unfinished.replace(self._path)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the memory's snapshot cannot be written", file=str(self._path), error=str(error))
        else:
            self._revision = state.revision


def _save(path: Path, state: MemoryState) -> None:
    texts = state.memory.texts
    with path.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            encoder=np.array(state.encoder),
            revision=np.array(state.revision),
            ids=np.array(list(texts), dtype=np.int64),
            digests=np.frombuffer(b"".join(map(digest, texts.values())), np.uint8).reshape(-1, _DIGEST_BYTES),
            **state.memory.arrays(),
        )
        file.flush()
        os.fsync(file.fileno())


async def save_regularly(save: Callable[[], Awaitable[None]]) -> None:
    """Save now and then, until cancelled."""
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_SAVES)
        try:
            await save()
        except Exception:
            _log.exception("saving the memory failed")


def digest(texts: EditTexts) -> bytes:
    """Equal for two edits whose texts have the same embeddings in the same places."""
    written = json.dumps([texts.in_scope, texts.out_of_scope])
    return blake2b(written.encode(), digest_size=_DIGEST_BYTES).digest()
