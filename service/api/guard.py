"""Who may pass which door: every path needs a key but those on the list, and every endpoint names its scope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.openai_errors import error_responses, speaks_openai
from service.api.problem_documents import ProblemResponse, problem_responses
from service.domain.keys import ANYONE, Caller, Keyring, KeyScope
from service.errors import BodyTooLarge, KeyNeeded, RateLimited, ScopeMissing

OPEN_PATHS = frozenset({"/livez", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})
"""Answered without a key, in whatever way they are asked: what probes ask for, and the public description."""

SCHEME = "apiKey"
"""The name of our security scheme in the OpenAPI document."""

_CHALLENGE = 'Bearer realm="errata"'
_DECLARED = "__errata_scope__"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def needs(scope: KeyScope | None) -> Callable[[Endpoint], Endpoint]:
    """Declare what an endpoint asks of its caller's key; None for a key, whatever its scopes."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, scope)
        return endpoint

    return declare


def declares(endpoint: Callable[..., Any]) -> bool:
    """Whether an endpoint says what it needs."""
    return hasattr(endpoint, _DECLARED)


def needed(endpoint: Callable[..., Any]) -> KeyScope | None:
    """The scope that an endpoint needs. One that declares nothing is nobody's but the administrator's."""
    scope: KeyScope | None = getattr(endpoint, _DECLARED, KeyScope.ADMIN)
    return scope


def document(path: str, endpoint: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options of a route, with what the OpenAPI document says of its guarding."""
    if path in OPEN_PATHS:
        return options
    scope = needed(endpoint)
    extra: dict[str, Any] = {"security": [{SCHEME: []}], "x-scope": scope}
    documented = error_responses if speaks_openai(path) else problem_responses
    return options | {
        "openapi_extra": (options.get("openapi_extra") or {}) | extra,
        "responses": documented(KeyNeeded, ScopeMissing, BodyTooLarge, RateLimited) | (options.get("responses") or {}),
    }


SECURITY_SCHEMES = {SCHEME: {"type": "http", "scheme": "bearer", "description": "docs/security.md"}}
"""How a key is sent, for the components of the OpenAPI document."""


class Guard:
    """Finds out who sends a request, and turns away who must not: 401 before anything of the request is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        caller, refusal = _identified(state["services"].keyring, Headers(scope=scope).get("Authorization"))
        if caller is not None:
            state["caller"] = caller
            await self._app(scope, receive, send)
            return
        challenge = _CHALLENGE if refusal is _NONE else f'{_CHALLENGE}, error="invalid_token"'
        await ProblemResponse(KeyNeeded(refusal), state["request_id"], {"WWW-Authenticate": challenge})(
            scope, receive, send
        )


def refused(request: Request, endpoint: Callable[..., Any]) -> ProblemResponse | None:
    """The answer to a caller that lacks the endpoint's scope; None for one that may pass."""
    scope, path = needed(endpoint), request.scope["path"]  # the path of `request.url` is partly the header Host's
    if path in OPEN_PATHS or scope is None:
        return None
    caller: Caller = request.state.caller
    if caller.may(scope):
        return None
    error = ScopeMissing(
        f"{request.method} {path} needs the scope {scope}; the API key {caller.actor!r} does not have it.",
        extra={"scope": scope},
    )
    challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
    return ProblemResponse(error, request.state.request_id, {"WWW-Authenticate": challenge})


_NONE = "The request carries no API key."
_OTHER = "The header Authorization does not begin with Bearer."
_UNKNOWN = "The API key is unknown, expired or revoked."


def _identified(keyring: Keyring, sent: str | None) -> tuple[Caller | None, str]:
    """Who sent a request; or None, and why."""
    if not keyring.required:
        return ANYONE, ""
    if sent is None:
        return None, _NONE
    kind, _, token = sent.partition(" ")
    if kind.lower() != "bearer":
        return None, _OTHER
    return keyring.caller(token.strip()), _UNKNOWN
