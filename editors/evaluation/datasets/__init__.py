"""Data sets: files of cases in the formats of the field and in our own. docs/evaluation.md shows a record of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from editors.errors import InvalidDataset
from editors.evaluation.cases import Case
from editors.evaluation.datasets import counterfact, easyedit, jsonl, zsre
from editors.evaluation.datasets._files import SHAPES, explain, read_records

Reader = Callable[[dict[str, Any], str], Case | None]
"""From a record and its number, which names it where it has no id, to a case; None for one that the format's own
authors leave out. Raises pydantic's ValidationError."""

FORMATS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "counterfact": counterfact.read_case,
        "easyedit": easyedit.read_case,
        "jsonl": jsonl.read_case,
        "zsre": zsre.read_case,
    }
)
"""The formats by name: the only list."""


def read_cases(path: Path, format_name: str, *, limit: int | None = None) -> list[Case]:
    """Read a data set, in the order of the file.

    The formats cannot be told apart by looking (one file may fit two), so the caller says which it is.

    Args:
        path: A JSON array of records, or one record a line.
        format_name: One of `FORMATS`.
        limit: At most this many cases, from the start; what follows them is not looked at.

    Raises:
        InvalidDataset: There is no such format, or the file cannot be read, is not JSON, has no cases, has a bad record
            or two of one id; records are named by line, or by number where they stand in an array.
        ValueError: The limit is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"a limit of {limit} cases asks for nothing")
    if format_name not in FORMATS:
        raise InvalidDataset(
            f"There is no data set format {format_name!r}.", hint=f"Choose one of {', '.join(FORMATS)}."
        )
    cases = list(islice(_cases(path, FORMATS[format_name]), limit))
    if not cases:
        raise InvalidDataset(f"{path} has no cases.", hint=SHAPES)
    return cases


def _cases(path: Path, reader: Reader) -> Iterator[Case]:
    places: dict[str, str] = {}
    for record in read_records(path):
        try:
            case = reader(record.fields, str(record.number))
        except ValidationError as error:
            raise InvalidDataset(f"{path}, {record.place}: {explain(error)}", hint=SHAPES) from error
        if case is None:
            continue
        if case.id in places:
            raise InvalidDataset(
                f"{path}, {record.place}: the id {case.id!r} is taken by {places[case.id]}.",
                hint="Give each case an id of its own, or none to any: they are then numbered.",
            )
        places[case.id] = record.place
        yield case
