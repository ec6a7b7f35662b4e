"""From the validator's errors to ours: which field, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.api.edit_bodies import FORMS, UNKNOWN_KIND
from service.errors import FieldError, Invalid, MalformedJson, RequestError

Found = Mapping[str, Any]
"""One error of the validator: its `type`, its place (`loc`, which begins with body, query, ...), and its `msg`."""

MOST_ERRORS = 100
"""Told of one request; of what is wrong beyond them, the number."""
_LONGEST_NAME = 200
"""Of a field that a pointer names; the names of unknown ones are the caller's."""

_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not known here",
    "model_attributes_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "string_unicode": "must be valid Unicode: it holds half a surrogate pair",
}


def explain(found: Sequence[Found]) -> RequestError:
    """Say in one error what is wrong with a request; `found` holds at least one error."""
    first = found[0]
    if first["type"] == "json_invalid":
        return MalformedJson(f"{first['ctx']['error']}, at character {first['loc'][-1]} of the body.")
    more = f" ({len(found) - 1} more in `errors`)" if len(found) > 1 else ""
    return Invalid(f"{_subject(first)} {_words(first)}{more}.", errors=tuple(map(field_error, found[:MOST_ERRORS])))


def field_error(error: Found) -> FieldError:
    """One error of the validator in our words."""
    if error["loc"][0] == "body":
        return FieldError(_pointer(error), _words(error))
    return FieldError("", f"{_subject(error)} {_words(error)}")


def _subject(error: Found) -> str:
    """What the error is about, as the beginning of a sentence."""
    place, *parts = error["loc"]
    if place != "body":
        return f"The {place} parameter `{'/'.join(str(part) for part in parts)}`"
    pointer = _pointer(error)
    return f"`{pointer[1:]}`" if pointer else "The body"


def _pointer(error: Found) -> str:
    """JSON pointer (RFC 6901) into the body, without the form that the validator chose for an edit."""
    parts = [part for part in error["loc"][1:] if part not in FORMS]
    if error["type"] == UNKNOWN_KIND:
        parts.append("kind")
    return "".join(f"/{str(part)[:_LONGEST_NAME].replace('~', '~0').replace('/', '~1')}" for part in parts)


def _words(error: Found) -> str:
    message = str(error["msg"]).removeprefix("Input ")
    return _WORDS.get(error["type"], message[:1].lower() + message[1:])
