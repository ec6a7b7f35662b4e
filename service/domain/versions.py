"""Versions of the model: the base, and the base with the edits of one bake in its weights. None is ever changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from service.domain.artifacts import Artifact

if TYPE_CHECKING:
    from service.domain.bakes import BakeReport

BASE_VERSION = "v0"
"""The base model itself, which is always there."""
VERSION_NAME = r"v(?:0|[1-9][0-9]{0,17})"
"""What a version is called, as a regular expression."""


class ExportFormat(StrEnum):
    """What a version can be exported as."""

    PEFT = "peft"
    """A LoRA adapter for PEFT, and for vLLM where it knows the architecture."""
    HF = "hf"
    """A plain Hugging Face checkpoint with the edits in its weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base model.

    Attributes:
        name: Its Hugging Face id, or the name of its folder.
        fingerprint: SHA-256 over its config and tensors, in hex; empty where they are elsewhere.
    """

    name: str
    fingerprint: str

    def is_other_than(self, loaded: Base) -> bool:
        """Whether the base that is loaded is known to be another; of one elsewhere, nothing is known."""
        return loaded.fingerprint not in {"", self.fingerprint}


@dataclass(frozen=True, slots=True, kw_only=True)
class BakedEdit:
    """An edit as it was when it was baked.

    Attributes:
        id: Such as `e17`.
        revision: Of its latest change then.
    """

    id: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """What a bake came to.

    Attributes:
        parent: The version that served when the bake was asked for. The delta is whole: it does not build on that one.
        config: The method's settings, defaults included.
        report: With which it passed its gate.
        artifact: Its delta.
    """

    parent: str
    base: Base
    edits: tuple[BakedEdit, ...]
    method: str
    config: dict[str, Any]
    report: BakeReport
    artifact: Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version as it is kept. Of v0, which nobody made, everything but `id` and `base` is empty.

    Attributes:
        id: Its name, such as `v3`.
        revision: At which it was added.
        bake: The bake that made it.
    """

    id: str
    base: Base
    parent: str | None = None
    edits: tuple[BakedEdit, ...] = ()
    method: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    report: BakeReport | None = None
    artifact: Artifact | None = None
    actor: str | None = None
    created_at: datetime | None = None
    revision: int = 0
    bake: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPage:
    """One page of a listing, newest first, without the failures of their reports."""

    data: tuple[Version, ...]
    has_more: bool


class VersionReader(Protocol):
    """Reads versions within one transaction; v0 is not among them, since it is nobody's to keep."""

    async def get(self, version_id: str) -> Version | None:
        """The version of that id, or None."""
        ...

    async def page(self, *, limit: int, after: str | None) -> VersionPage:
        """Versions older than the id `after`, newest first."""
        ...

    async def artifacts(self) -> tuple[tuple[str, Artifact], ...]:
        """The id and the artifact of every version, oldest first."""
        ...


class VersionWriter(VersionReader, Protocol):
    """Adds versions. Each takes the next number, and the next revision."""

    async def add(self, new: NewVersion) -> Version:
        """Keep a version."""
        ...
