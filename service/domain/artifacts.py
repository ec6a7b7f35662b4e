"""Artifacts: files that are kept under the hash of their content, and so can neither change nor be mistaken."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file by what is in it.

    Attributes:
        digest: SHA-256 of its content, in hex; its name.
        size: In bytes.
    """

    digest: str
    size: int


class Artifacts(Protocol):
    """Keeps artifacts. What is handed out has the content that its name says.

    Every method may raise `ArtifactsUnavailable`.
    """

    async def describe(self, file: Path) -> Artifact:
        """What a file is called once it is kept; keeps nothing."""
        ...

    async def put(self, file: Path, artifact: Artifact) -> None:
        """Keep a file. It is there under its name as a whole or not at all; one that is there already is left alone.

        Raises:
            StorageFull: There is no room for it.
        """
        ...

    def fetch(self, artifact: Artifact, *, owner: str) -> AbstractAsyncContextManager[Path]:
        """A copy for the length of the block, verified. `owner` is whose it is, for the error.

        Raises:
            ArtifactDamaged: It is missing, or has another content than its name says.
            StorageFull: There is no room for the copy.
        """
        ...

    async def verify(self, artifact: Artifact, *, owner: str) -> None:
        """Read it and compare.

        Raises:
            ArtifactDamaged: It is missing, or has another content than its name says.
        """
        ...

    async def collect(self, named: Collection[str], claimed: Collection[str]) -> tuple[str, ...]:
        """Remove every artifact but these, and what was left half written of those that are not claimed.

        Args:
            named: Digests to keep.
            claimed: Digests to keep that are being put, or are about to be.

        Returns:
            What was removed.
        """
        ...
