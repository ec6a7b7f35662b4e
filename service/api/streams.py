"""Server-sent events of one answer, and callers who leave before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import structlog
from fastapi import Request
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from service.api.problem_documents import document
from service.errors import ErrataError, InternalError

T = TypeVar("T")

LEFT = 499
"""nginx's status for a caller who did not wait; nobody reads it but the log."""

_log = structlog.get_logger(__name__)


class AnswerStream(EventSourceResponse):
    """Events of an answer; what has not been written when the caller leaves is given up.

    Args:
        events: As `format_sse_event` writes them.
        close: Gives up the rest; called whatever happens.
        last: The event that an error becomes, which ends them.
    """

    def __init__(
        self, events: AsyncIterator[bytes], close: Callable[[], None], last: Callable[[ErrataError], bytes]
    ) -> None:
        super().__init__(_until_error(events, last), headers={"Cache-Control": "no-cache"})
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None when the caller leaves before, and the work is cancelled."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def problem_event(request_id: str) -> Callable[[ErrataError], bytes]:
    """What an error becomes in a stream of ours: the event `error` with the problem document as its data."""

    def event(error: ErrataError) -> bytes:
        return format_sse_event(event="error", data_str=document(error, request_id).decode("ascii"))

    return event


async def _until_error(events: AsyncIterator[bytes], last: Callable[[ErrataError], bytes]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield event
    except ErrataError as error:
        yield last(error)
    except Exception:
        _log.exception("a stream broke")
        yield last(InternalError("Something unexpected went wrong."))
