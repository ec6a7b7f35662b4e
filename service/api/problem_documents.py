"""RFC 9457 problem documents: how an error looks on the wire and in the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from service.api import openai_errors
from service.errors import ErrataError, FieldError, InternalError

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field of the request."""

    pointer: str = Field(description="JSON pointer to the field; empty for the body as a whole and for parameters.")
    detail: str
    line: int = Field(0, description="In the answer to an import alone: which line it is about, from 1.")


class Problem(BaseModel):
    """A problem (RFC 9457). Further members depend on its type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`/problems/` and the slug of the error; docs/errors.md lists them.")
    title: str
    status: int
    detail: str = Field(description="What happened.")
    hint: str = Field(description="What to do about it; may be empty.")
    errors: list[FieldProblem]
    request_id: str = Field(description="As in the header X-Request-Id and in the log.")


class ProblemResponse(Response):
    """An error on the wire; under `/v1/`, whichever layer it comes from, in OpenAI's words."""

    media_type = MEDIA_TYPE

    def __init__(self, error: ErrataError, request_id: str, headers: Mapping[str, str] | None = None) -> None:
        self._error = error
        self._sent = dict(headers or {})
        if error.retryable:
            self._sent.setdefault("Retry-After", str(error.retry_after))
        super().__init__(document(error, request_id), status_code=error.status, headers=self._sent)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if not openai_errors.speaks_openai(scope["path"]):
            await super().__call__(scope, receive, send)
            return
        error = self._error
        response = Response(
            openai_errors.error_document(error),
            status_code=openai_errors.status_of(error),
            headers=self._sent,
            media_type=openai_errors.MEDIA_TYPE,
        )
        await response(scope, receive, send)


def problem_responses(*kinds: type[ErrataError]) -> dict[int | str, dict[str, Any]]:
    """How an endpoint documents the errors it answers with; `InternalError` is always among them."""
    documented: tuple[type[ErrataError], ...] = (*kinds, InternalError)
    by_status: dict[int, list[type[ErrataError]]] = {}
    for kind in documented:
        by_status.setdefault(kind.status, []).append(kind)
    return {status: _documented(status, by_status[status]) for status in sorted(by_status)}


def problem_schemas() -> dict[str, Any]:
    """The schemas that `problem_responses` refers to, for the components of the OpenAPI document."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "Problem": schema}


def _documented(status: int, kinds: list[type[ErrataError]]) -> dict[str, Any]:
    documented: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(kind.slug for kind in kinds)}",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if any(kind.retryable for kind in kinds):
        seconds = {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}
        documented["headers"] = {"Retry-After": seconds}
    return documented


def document(error: ErrataError, request_id: str) -> bytes:
    """The document in ASCII: a message may quote text that UTF-8 cannot hold."""
    members = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "hint": error.hint,
        "errors": [_field(field) for field in error.errors],
        "request_id": request_id,
    }
    return json.dumps({**error.extra, **members}).encode("ascii")


def _field(field: FieldError) -> dict[str, Any]:
    place = {} if field.line is None else {"line": field.line}
    return {"pointer": field.pointer, "detail": field.detail, **place}
