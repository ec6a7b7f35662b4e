"""OpenAI's error object: how an error looks to whoever calls `/v1/*`, and in the OpenAPI document.

What is wrong with a request is 400 there, also where it is 422 or 409 elsewhere: OpenAI's clients send again what was
answered with 409, and nothing would come of it.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from service.errors import (
    BaseMismatch,
    ErrataError,
    InternalError,
    Invalid,
    KeyNeeded,
    MalformedJson,
    NoChatTemplate,
    PromptTooLong,
    RateLimited,
    RouteNotFound,
    VersionNotFound,
)

MEDIA_TYPE = "application/json"
_PREFIX = "/v1/"
_CODES: dict[type[ErrataError], str] = {
    KeyNeeded: "invalid_api_key",
    PromptTooLong: "context_length_exceeded",
    RateLimited: "rate_limit_exceeded",
    VersionNotFound: "model_not_found",
}
"""What OpenAI calls our errors; the others keep their names."""
_HINTS: dict[type[ErrataError], str] = {
    BaseMismatch: "GET /v1/models lists the models.",
    Invalid: "",
    MalformedJson: "",
    NoChatTemplate: "Send one message, of the role user, or call /v1/completions.",
    PromptTooLong: "Shorten the prompt or lower max_tokens.",
    RouteNotFound: "Of OpenAI's API, /v1/chat/completions, /v1/completions and /v1/models are served.",
    VersionNotFound: "GET /v1/models lists the models.",
}
"""What to do, where a class's own hint is about another interface."""
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class OpenAIError(BaseModel):
    """What is wrong."""

    message: str = Field(description="What happened, and what to do about it.")
    type: str
    param: str | None = Field(description="The field concerned, if it is one.")
    code: str = Field(description="docs/http.md lists them.")


class OpenAIErrorPage(BaseModel):
    """An error, as OpenAI's clients read it."""

    error: OpenAIError


def speaks_openai(path: str) -> bool:
    """Whether errors at this path are OpenAI's."""
    return path.startswith(_PREFIX)


def status_of(error: ErrataError | type[ErrataError]) -> int:
    """The status that the error has there."""
    return 400 if error.status in {409, 422} else error.status


def error_document(error: ErrataError) -> bytes:
    """The error object in ASCII: a message may quote text that UTF-8 cannot hold."""
    status, kind = status_of(error), type(error)
    hint = _HINTS.get(kind, error.hint)
    page = {
        "message": f"{_said(error)} {hint}".strip(),
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": _param(error),
        "code": _code(kind),
    }
    return json.dumps({"error": page}).encode("ascii")


def error_responses(*kinds: type[ErrataError]) -> dict[int | str, dict[str, Any]]:
    """How an endpoint documents the errors it answers with; `InternalError` is always among them."""
    by_status: dict[int, list[type[ErrataError]]] = {}
    for kind in (*kinds, InternalError):
        by_status.setdefault(status_of(kind), []).append(kind)
    documented: dict[int | str, dict[str, Any]] = {
        status: _documented(f"{HTTPStatus(status).phrase}: {', '.join(map(_code, by_status[status]))}")
        for status in sorted(by_status)
    }
    return documented | {"default": _documented("Any other error.")}


def error_schemas() -> dict[str, Any]:
    """The schemas that `error_responses` refers to, for the components of the OpenAPI document."""
    schema = OpenAIErrorPage.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), OpenAIErrorPage.__name__: schema}


def _documented(description: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{OpenAIErrorPage.__name__}"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def _code(kind: type[ErrataError]) -> str:
    return _CODES.get(kind, kind.slug.replace("-", "_"))


def _said(error: ErrataError) -> str:
    """What happened; all of it, since there is no list of fields beside it."""
    if len(error.errors) < 2:
        return error.detail
    return " ".join(
        f"{f'`{_dotted(one.pointer)}`' if one.pointer else 'The body'} {one.detail}." for one in error.errors
    )


def _param(error: ErrataError) -> str | None:
    if isinstance(error, VersionNotFound | BaseMismatch):
        return "model"
    return next((_dotted(one.pointer) for one in error.errors if one.pointer), None)


def _dotted(pointer: str) -> str:
    """A JSON pointer as OpenAI writes it, such as `messages[0].role`."""
    return re.sub(r"/(\d+)(?=/|$)", r"[\1]", pointer).replace("/", ".").removeprefix(".")
