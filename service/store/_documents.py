"""What the rows of jobs share: ids with a prefix, documents of JSON, and moments in UTC.

Documents have the domain's own names and come back equal to what was put. The database hands them out as text, to be
read by pydantic alone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Label, Text, cast, literal
from sqlalchemy.dialects.postgresql import JSONB


def number_in(prefix: str, subject_id: str) -> int | None:
    """17 for `ev17` with the prefix `ev`; None for what cannot be an id."""
    match = re.fullmatch(rf"{prefix}([1-9][0-9]{{0,17}})", subject_id)
    return int(match[1]) if match else None


def dumped(kind: TypeAdapter[Any], value: object) -> str:
    """A value as JSON.

    Raises:
        ValidationError: It could not be read back, since it holds what JSON does not, such as NaN.
    """
    document = kind.dump_json(value)
    kind.validate_json(document, strict=True)  # what cannot be read back must not be written
    return document.decode()


def document(text: str) -> ColumnElement[Any]:
    """JSON on its way into a column."""
    return cast(literal(text, Text), JSONB)


def as_text(column: ColumnElement[Any], name: str) -> Label[str]:
    """A document on its way out."""
    return cast(column, Text).label(name)


def without(column: ColumnElement[Any], empty: dict[str, list[object]]) -> ColumnElement[Any]:
    """A document with some of its members emptied; an absent one stays absent."""
    return column.concat(literal(empty, JSONB))


def storable(text: str) -> str:
    """A text without the NUL character, which a model may write and PostgreSQL cannot hold."""
    return text.replace("\0", "\ufffd")


def utc(moment: datetime | None) -> datetime | None:
    """The same moment, in UTC."""
    return moment and moment.astimezone(UTC)
