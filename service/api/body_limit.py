"""No more of a body is read than the operator allows."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problem_documents import ProblemResponse
from service.errors import BodyTooLarge

MAX_BODY = "errata.max_body_bytes"
"""Where a request's scope holds the limit, for the words of the refusal."""


class BodyLimit:
    """Refuses a body that is declared too large before any of it is read, and one that turns out to be, where it is.

    Args:
        most: Bytes of a body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[MAX_BODY] = self._most
        declared = Headers(scope=scope).get("Content-Length", "")
        if declared.isdecimal() and int(declared) > self._most:
            await ProblemResponse(too_large(scope), scope["state"]["request_id"])(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413)  # the one exception that those who read bodies let pass
            return message

        await self._app(scope, counted, send)


def too_large(scope: Scope) -> BodyTooLarge:
    """What is said of a body over the limit."""
    return BodyTooLarge(f"The body has more than the {scope[MAX_BODY]} bytes that the service takes.")
