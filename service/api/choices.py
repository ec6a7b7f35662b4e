"""Lists in bodies that name no item twice, and the choice between all edits in force and some by their ids."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, WrapValidator
from pydantic_core import PydanticCustomError

MOST_EDITS = 10_000
_ACTIVE = "active"

_Item = TypeVar("_Item", bound=Hashable)
EditId = Annotated[str, StringConstraints(pattern="^e[1-9][0-9]{0,17}$")]


def distinct(items: list[_Item]) -> list[_Item]:
    """The list, in which nothing may stand twice."""
    refuse_twice(items, "must not name {item} twice")
    return items


def refuse_twice(items: Sequence[Hashable], message: Any) -> None:
    """Refuse a list in which something stands twice; the message may name it as `{item}`."""
    seen = set()
    for item in items:
        if item in seen:
            raise PydanticCustomError("twice", message, {"item": str(item)})
        seen.add(item)


def _active_or_listed(edits: object, listed: Callable[[object], list[str]]) -> list[str]:
    if isinstance(edits, str) and edits != _ACTIVE:
        raise PydanticCustomError("active_or_ids", 'must be "active", or a list of ids such as "e17"')
    return [_ACTIVE] if edits == _ACTIVE else listed(edits)


ChosenEdits = Annotated[
    list[EditId],
    Field(min_length=1, max_length=MOST_EDITS),
    AfterValidator(distinct),
    WrapValidator(_active_or_listed, json_schema_input_type=Literal["active"] | list[EditId]),
]
"""`active`, which becomes `["active"]`, or ids."""
