"""The outermost layer: every request has an id, and no failure goes unanswered."""

from __future__ import annotations

import re
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problem_documents import ProblemResponse
from service.errors import InternalError

HEADER = "X-Request-Id"
_ACCEPTABLE = re.compile(r"[\x21-\x7e]{1,128}")
_log = structlog.get_logger(__name__)


class RequestIds:
    """Takes the caller's `X-Request-Id` or makes one, gives it back, and signs every log line of the request with it.

    An unexpected exception is logged here and answered as a problem without its internals: Starlette's own place for
    that lies outside all middleware, where the answer would go without its id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _taken_or_made(Headers(scope=scope).get(HEADER))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                _log.exception("unexpected error", method=scope["method"], path=scope["path"])
                if started:  # too late for another answer: the server must cut the connection
                    raise
                problem = ProblemResponse(InternalError("Something unexpected went wrong."), request_id)
                await problem(scope, receive, send_with_id)


def _taken_or_made(sent: str | None) -> str:
    return sent if sent is not None and _ACCEPTABLE.fullmatch(sent) else uuid4().hex
