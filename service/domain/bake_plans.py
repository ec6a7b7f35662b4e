"""What a bake would do, which edits can be baked together, and the port of what bakes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.domain.bakes import EVERY_EDIT, BakeReport, BakeRequest, Stage
from service.domain.edits import Edit, EditKind, normalise
from service.domain.versions import BakedEdit, Base, ExportFormat, Version
from service.errors import EditNotFound, EditsContradict, NotBakeable, NothingToBake

BakeProgress = Callable[[Stage, int], Awaitable[bool]]
"""Told the stage and its percent; answers whether to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether a method is for so many edits.

    Attributes:
        most_edits: Up to which it is known to hold; None where no number is known.
        why: Where that number comes from.
    """

    method: str
    fits: bool
    most_edits: int | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An edit in force that cannot be baked, and goes on being served from the memory."""

    id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BakePlan:
    """What a bake would do.

    Attributes:
        request: With the method's whole config.
        edits: What would be baked, in order.
        left_out: Of every edit in force, those that cannot be.
        advised: The first method that fits so many edits.
        fits: Every method.
        passes: About how many times the model would be run to compute the delta.
        probes: How many prompts would be asked, of the base and of the edited model.
        seconds: About how long it would take, from the newest bake with this method; None when there was none.
    """

    request: BakeRequest
    base: Base
    edits: tuple[BakedEdit, ...]
    left_out: tuple[LeftOut, ...]
    advised: str
    fits: tuple[Fit, ...]
    passes: int
    probes: int
    seconds: float | None = None


class Baker(Protocol):
    """What makes deltas, on views of the base, and turns them into what others can load."""

    async def base(self) -> Base:
        """The base model that it edits."""
        ...

    async def plan(self, request: BakeRequest, edits: Sequence[Edit], left_out: Sequence[LeftOut]) -> BakePlan:
        """What a bake of these edits would do; says no before anything is queued.

        Raises:
            UnknownMethod: No weight editor has that name.
            Invalid: A setting of the method is unknown or has a bad value.
            NotBakeable: The base's architecture cannot be edited.
            PromptTooLong: A prompt of an edit and its answer do not fit in the model's context.
            GateUnmeetable: No version can meet the gate.
        """
        ...

    async def bake(
        self, request: BakeRequest, edits: Sequence[Edit], file: Path, *, progress: BakeProgress
    ) -> BakeReport | None:
        """Compute the delta, measure it, and write it to `file`; None when `progress` said to stop.

        Raises:
            As `plan`, and
            CannotEdit: The method lacks something on this base, or cannot carry out an edit.
            StorageFull: There is no room for the file.
        """
        ...

    async def export(self, version: Version, file: Path, kind: ExportFormat, folder: Path) -> None:
        """Write a version, whose delta is in `file`, as others load it, with its model card.

        Raises:
            BaseMismatch: It was made for another base model.
            ArtifactDamaged: The file holds no delta.
            StorageFull: There is no room for it.
        """
        ...


def chosen(request: BakeRequest, in_force: Sequence[Edit]) -> tuple[tuple[Edit, ...], tuple[LeftOut, ...]]:
    """The edits that a request means, and of every edit in force those that cannot be baked.

    Raises:
        EditNotFound: An edit named is not in force.
        NotBakeable: An edit named cannot be baked.
        NothingToBake: No edit is left.
        EditsContradict: Two of them want different answers to one prompt.
    """
    by_id = {edit.id: edit for edit in in_force}
    if request.edits == EVERY_EDIT:
        left_out = tuple(LeftOut(id=edit.id, why=why) for edit in in_force if (why := unbakeable(edit)))
        edits = tuple(edit for edit in in_force if unbakeable(edit) is None)
    else:
        left_out = ()
        if missing := [name for name in request.edits if name not in by_id]:
            raise EditNotFound(f"No edit {missing[0]} is in force.")
        edits = tuple(by_id[name] for name in dict.fromkeys(request.edits))
        for edit in edits:
            if why := unbakeable(edit):
                raise NotBakeable(f"{edit.id} cannot be baked: {why}.", extra={"edit_id": edit.id})
    if not edits:
        raise NothingToBake("No edit in force can be baked." if in_force else "No edit is in force.")
    refuse_contradictions(edits)
    return edits, left_out


def unbakeable(edit: Edit) -> str | None:
    """Why an edit cannot be baked; None when it can."""
    if edit.descriptor.kind not in {EditKind.QA, EditKind.FACT}:
        return f"a {edit.descriptor.kind} has no answer for a weight editor to write"
    if edit.expires_at is not None:
        return "it expires, and weights do not"
    return None


def refuse_contradictions(edits: Sequence[Edit]) -> None:
    """Raise when two edits want different answers to one prompt.

    Raises:
        EditsContradict: They do.
    """
    wanted: dict[str, tuple[Edit, str]] = {}
    for edit in edits:
        for prompt, target in edit.descriptor.answers:
            other, before = wanted.setdefault(normalise(prompt), (edit, target))
            if normalise(before) != normalise(target):
                raise EditsContradict(
                    f"{other.id} answers {prompt!r} with {before!r}, and {edit.id} with {target!r}.",
                    extra={"edit_ids": [other.id, edit.id]},
                )
