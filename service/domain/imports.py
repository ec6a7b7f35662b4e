"""Imports: many edits in one transaction, from the lines of a file; all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.domain.edits import Edit, EditState, NewEdit
from service.errors import FieldError

MOST_EDITS = 50_000
"""Of one import: about as many as are written while another writer waits for its turn."""
MOST_ERRORS = 100
"""Told of one import; how many there are is said as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An edit to import.

    Attributes:
        number: Of its line, from 1.
        key: Of its descriptor.
    """

    number: int
    new: NewEdit
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import has added.

    Attributes:
        ids: In the order of the lines.
        revision: Of the newest change.
    """

    ids: tuple[str, ...]
    revision: int


def conflicts_within(lines: Sequence[Line]) -> Iterator[FieldError]:
    """The lines that want to be in force beside an earlier one for the same prompt."""
    first: dict[str, int] = {}
    for line in lines:
        if line.new.state is EditState.ACTIVE and first.setdefault(line.key, line.number) != line.number:
            yield FieldError("", f"line {first[line.key]} already answers this prompt", line=line.number)


def conflicts_with(
    lines: Sequence[Line], in_force: Mapping[str, Edit], superseded: Mapping[str, Edit | None]
) -> Iterator[FieldError]:
    """The lines that could not be posted one after another, each once, for what is kept already.

    Args:
        lines: In their order.
        in_force: The edits in force by their keys.
        superseded: What each id that a line supersedes names; None where nothing can be superseded by that name.
    """
    taken: dict[str, int] = {}
    for line in lines:
        name = line.new.supersedes
        if name is not None and name in taken:
            yield FieldError("/supersedes", f"line {taken[name]} already supersedes {name}", line=line.number)
            continue
        if name is not None:
            taken[name] = line.number
            if superseded[name] is None:
                yield FieldError("/supersedes", f"no edit {name} is there to be superseded", line=line.number)
                continue
        other = in_force.get(line.key)
        if line.new.state is EditState.ACTIVE and other is not None and other.id not in taken:
            yield FieldError("", f"{other.id} already answers this prompt", line=line.number)
