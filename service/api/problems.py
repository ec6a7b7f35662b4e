"""From whatever went wrong to a problem document: the one place where exceptions become answers."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.api.body_limit import too_large
from service.api.guard import SECURITY_SCHEMES
from service.api.invalid_requests import explain
from service.api.openai_errors import error_schemas
from service.api.problem_documents import ProblemResponse, problem_schemas
from service.errors import ErrataError, InternalError, MalformedJson, MethodNotAllowed, RouteNotFound

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Make `app` answer every error as a problem document, or as OpenAI's object where that is spoken."""
    app.add_exception_handler(ErrataError, _on_errata_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    _document_problems(app)


async def _on_errata_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ErrataError)
    if error.status >= 500:
        _log.warning("request failed", problem=error.slug, detail=error.detail, cause=repr(error.__cause__))
    return ProblemResponse(error, request.state.request_id)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return ProblemResponse(explain(error.errors()), request.state.request_id)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What the framework raises: no such path, not that method, a body that is too large or cannot be decoded."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        return ProblemResponse(RouteNotFound(f"Nothing is served at {path}."), request.state.request_id)
    if error.status_code == 405:
        refused = MethodNotAllowed(f"{path} does not take {request.method}.")
        return ProblemResponse(refused, request.state.request_id, {"Allow": ", ".join(_allowed(request))})
    if error.status_code == 413:
        return ProblemResponse(too_large(request.scope), request.state.request_id)
    if error.status_code == 400:
        return ProblemResponse(MalformedJson("The body cannot be read as JSON."), request.state.request_id)
    _log.error("unexpected HTTP exception", status=error.status_code, detail=error.detail)
    return ProblemResponse(InternalError("Something unexpected went wrong."), request.state.request_id)


def _allowed(request: Request) -> list[str]:
    """The methods of a path; Starlette's own Allow names those of the first route alone."""
    app: FastAPI = request.app
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]


def _document_problems(app: FastAPI) -> None:
    """Put the schemas of problems, of OpenAI's errors and of keys among the components of the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(problem_schemas() | error_schemas())
        components["securitySchemes"] = SECURITY_SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document
