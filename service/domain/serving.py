"""Serving: which version of the weights answers whom, and how that changes. Nothing is served but by these rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from service.domain.changes import ChangeKind
from service.domain.edits import Edit, EditState
from service.domain.versions import BASE_VERSION, BakedEdit
from service.errors import NothingToRollBack, VersionActive

EVERYONE = 100
"""Percent."""
_FINENESS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Which versions answer.

    Attributes:
        active: The version that answers.
        canary: A version that answers a share of the questions in its place, or None.
        percent: That share, from 1 to 99; 0 without a canary.
        back: The revision at which the version before `active` answered, to which a rollback goes; None at the first.
        revision: Of the change that made it so; 0 while there was none.
    """

    active: str = BASE_VERSION
    canary: str | None = None
    percent: int = 0
    back: int | None = None
    revision: int = 0

    @property
    def answering(self) -> tuple[str, ...]:
        """Every version that answers somebody."""
        return (self.active,) if self.canary is None else (self.active, self.canary)

    def share(self, version_id: str) -> int:
        """How many percent of the questions a version answers."""
        if version_id == self.active:
            return EVERYONE - self.percent
        return self.percent if version_id == self.canary else 0

    def version_for(self, key: str) -> str:
        """The version that answers a caller: the same as long as the canary is, and still it when its share grows."""
        if self.canary is None:
            return self.active
        digest = blake2b(f"{self.canary}\0{key}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest) % _FINENESS
        return self.canary if place < self.percent * _FINENESS // EVERYONE else self.active


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of what is served.

    Attributes:
        kind: What it is.
        subject: The version that it brings in, or takes out.
        to: What is served after it; its revision is given when it is written.
    """

    kind: ChangeKind
    subject: str
    to: Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Outdated:
    """An edit in a version's weights that is not in force as it was baked.

    Attributes:
        id: Such as `e17`.
        why: What became of it: `expired` or `retracted`, or `changed` when the memory answers by what it is now.
    """

    id: str
    why: str


class ServingReader(Protocol):
    """Reads what is served within one transaction."""

    async def now(self) -> Serving:
        """What is served."""
        ...

    async def at(self, revision: int) -> Serving:
        """What the change of that revision made be served."""
        ...


class ServingWriter(ServingReader, Protocol):
    """Changes what is served; each change takes the next revision."""

    async def make(self, move: Move, *, reason: str | None) -> Serving:
        """Write a move."""
        ...


def activation(now: Serving, version_id: str, percent: int) -> Move | None:
    """Let a version answer so many percent of the questions; None when it does already.

    At 100 it becomes the active one, and there is no canary; below, it is the canary, in place of any other.

    Raises:
        VersionActive: The active version is to be its own canary.
    """
    if version_id == now.active and percent < EVERYONE:
        raise VersionActive(f"{version_id} is active, so it cannot answer {percent}% beside itself.")
    if percent < EVERYONE:
        to = Serving(active=now.active, canary=version_id, percent=percent, back=now.back)
    else:
        to = Serving(active=version_id, back=now.back if version_id == now.active else now.revision)
    same = (to.active, to.canary, to.percent) == (now.active, now.canary, now.percent)
    return None if same else Move(kind=ChangeKind.VERSION_ACTIVATED, subject=version_id, to=to)


async def rollback(serving: ServingReader) -> Move:
    """Undo the newest activation that still stands; afterwards one version answers everything.

    A canary is taken out, and the active version stays. Without one, the version answers again that was active when
    the present one was activated. So each rollback goes one further back, and never forth to what was left.

    Raises:
        NothingToRollBack: No activation stands.
    """
    now = await serving.now()
    if now.canary is not None:
        to, left = Serving(active=now.active, back=now.back), now.canary
    elif now.back is None:
        raise NothingToRollBack(f"{now.active} was served from the beginning.")
    else:
        before, left = await serving.at(now.back), now.active
        to = Serving(active=before.active, back=before.back)
    return Move(kind=ChangeKind.VERSION_ROLLED_BACK, subject=left, to=to)


def is_contained(edit: Edit, baked: Collection[BakedEdit]) -> bool:
    """Whether a version that contains these edits answers this one from its weights: it was baked as it is now.

    The memory serves every other edit in force. An edit that has changed since it was baked is another edit to the
    weights, so the memory goes on answering it.
    """
    return BakedEdit(id=edit.id, revision=edit.revision) in baked


def outdated(baked: Sequence[BakedEdit], now: Sequence[Edit]) -> tuple[Outdated, ...]:
    """Those of a version's edits that its weights answer and nobody wants any more, given what they are now."""
    found = {edit.id: edit for edit in now}
    return tuple(
        Outdated(id=one.id, why="changed" if found[one.id].state is EditState.ACTIVE else found[one.id].state.value)
        for one in baked
        if found[one.id].state is not EditState.ACTIVE or found[one.id].revision != one.revision
    )
