"""Files of records, what the formats' records are made of, and what is wrong with one, in a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from editors.errors import InvalidDataset

SHAPES = "A data set is a JSON array of records, or one record a line; docs/evaluation.md shows one of each format."

VARIANT = "kind="
"""Begins what pydantic puts in an error's place for the member of a union, which is no field of the record."""

_PHRASES = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of this format",
    "string_type": "must be a text",
    "string_too_short": "is empty",
    "dict_type": "must be an object",
    "model_type": "must be an object",
}


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it stands in the file.

    Attributes:
        number: Its line, or its place in the array, from 1.
        place: The same in words, such as `line 3`.
    """

    number: int
    place: str
    fields: dict[str, Any]


def _identifier(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _first(value: object) -> object:
    """The first of the accepted answers, which some formats nest in lists of lists."""
    while isinstance(value, list):
        value = value[0] if value else ""
    return value


def _first_if_any(value: object) -> object:
    return _first(value) or None


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Identifier = Annotated[Text, BeforeValidator(_identifier)]
"""A text, or a whole number."""
Answer = Annotated[Text, BeforeValidator(_first)]
"""A text, or lists of accepted texts, whose first is taken."""
OptionalAnswer = Annotated[Text | None, BeforeValidator(_first_if_any)]
"""The same, or nothing, as a null, an empty text or an empty list."""


class Part(BaseModel):
    """A record of one of the field's formats, or a part of one. What a case has no use for is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def read_records(path: Path) -> Iterator[RawRecord]:
    """The records of a file, in order: those of a JSON array, or one a line. Blank lines are passed over.

    Raises:
        InvalidDataset: The file cannot be read, or something in it is not JSON or not an object.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            yield from _array(path, file.read()) if first.lstrip().startswith("[") else _lines(path, file)
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}."
        raise InvalidDataset(detail, hint="Give the path of a data set that this process may read.") from error
    except UnicodeDecodeError as error:
        raise InvalidDataset(f"{path} is not text in UTF-8.", hint=SHAPES) from error


def explain(error: ValidationError) -> str:
    """The first of a record's mistakes in a sentence that names the field, and how many more there are."""
    first, *others = error.errors(include_url=False, include_input=False)
    phrase = _PHRASES.get(first["type"], first["msg"].removeprefix("Input "))
    more = f" ({len(others)} more mistake{'s' * (len(others) > 1)} in this record)" if others else ""
    return f"{_field(first['loc'])} {phrase}{more}."


def _field(place: tuple[int | str, ...]) -> str:
    """Such as `in_scope[0].target`; indices from 0, as in JSON paths."""
    parts = [part for part in place if not str(part).startswith(VARIANT)]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return f"`{name.removeprefix('.')}`" if name else "the record"


def _array(path: Path, text: str) -> Iterator[RawRecord]:
    for number, value in enumerate(_parsed(path, text), start=1):
        yield _record(path, number, f"record {number}", value)


def _lines(path: Path, file: TextIO) -> Iterator[RawRecord]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield _record(path, number, f"line {number}", _parsed(path, line.rstrip(), line=number))


def _record(path: Path, number: int, place: str, value: object) -> RawRecord:
    if not isinstance(value, dict):
        raise InvalidDataset(f"{path}, {place}: a record is an object, which this is not.", hint=SHAPES)
    return RawRecord(number, place, value)


def _parsed(path: Path, text: str, *, line: int = 1) -> Any:
    """The value of a JSON text that begins on that line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}, column {error.colno}"
        raise InvalidDataset(f"{path}, {place}: this is not JSON ({error.msg}).", hint=SHAPES) from error
    except (ValueError, RecursionError) as error:
        raise InvalidDataset(f"{path}, line {line}: this JSON cannot be read ({error}).", hint=SHAPES) from error
