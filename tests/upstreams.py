"""A server that holds a base model elsewhere, as an OpenAI-compatible one does, and every way in which it can fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

MODEL = "somewhere/large"
Behaviour = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
"""Answers a question, given its body."""


class _Server(uvicorn.Server):
    capture_signals = nullcontext

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def on_a_socket(app: ASGIApp) -> AsyncIterator[str]:
    """The address of an application on a real server, on this event loop."""
    server = _Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())
    await server.up.wait()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await serving


@dataclass
class Upstream:
    """Answers with the words of the question in reverse, unless told to behave otherwise.

    Attributes:
        asked: The path, the body and the headers of each question so far.
        gone: Set when somebody leaves before the end of an answer.
        release: What `held` waits for.
        most: Questions that were there at once.
        listed: The status of `/v1/models`; None where it hangs.
    """

    behaviour: Behaviour | None = None
    asked: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    now: int = 0
    most: int = 0
    listed: int | None = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/v1/models":
            while self.listed is None and (await receive())["type"] != "http.disconnect":
                pass
            if self.listed is None:
                return
            await reply(self.listed, {"data": [{"id": MODEL, "max_model_len": 77}]})({}, receive, send)
            return
        body = b""
        while (part := await receive()).get("more_body"):
            body += part["body"]
        question = json.loads(body + part["body"])
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.append((scope["path"], question, headers))
        self.now += 1
        self.most = max(self.most, self.now)
        self.arrived.release()
        try:
            await (self.behaviour or answered)(question, receive, send)
        finally:
            self.now -= 1

    async def held(self, question: dict[str, Any], receive: Receive, send: Send) -> None:
        """Say the first piece of a streamed answer, or nothing of another, and the rest when released."""
        words = said(question).split()
        if question.get("stream"):
            await begin(send, "text/event-stream")
            await send(body_of(event(question, words[0]), more=True))
        leaving = asyncio.ensure_future(receive())
        released = asyncio.ensure_future(self.release.wait())
        await asyncio.wait((leaving, released), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            self.gone.set()
            released.cancel()
            return
        leaving.cancel()
        if not question.get("stream"):
            await answered(question, receive, send)
            return
        for word in words[1:]:
            await send(body_of(event(question, f" {word}"), more=True))
        await send(body_of(event(question, "", finish="stop") + b"data: [DONE]\n\n"))


def said(question: dict[str, Any]) -> str:
    """What it answers."""
    asked = question["prompt"] if "prompt" in question else question["messages"][-1]["content"]
    return " ".join(asked.split()[::-1])


async def answered(question: dict[str, Any], receive: Receive, send: Send) -> None:
    """As any OpenAI-compatible server does."""
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    if not question.get("stream"):
        text = {"text": said(question)} if "prompt" in question else {"message": {"content": said(question)}}
        await reply(200, {"choices": [{**text, "finish_reason": "length"}], "usage": usage})(question, receive, send)
        return
    await begin(send, "text/event-stream")
    pieces = [f" {word}" if place else word for place, word in enumerate(said(question).split())]
    for piece in pieces:
        await send(body_of(event(question, piece), more=True))
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    await send(body_of(event(question, "", finish="length") + last + b"data: [DONE]\n\n"))


def reply(status: int, document: object, **headers: str) -> Behaviour:
    """Answers everything alike: a document, or bytes as they are."""
    sent = document if isinstance(document, bytes) else json.dumps(document).encode()

    async def behaviour(_: dict[str, Any], __: Receive, send: Send) -> None:
        await begin(send, "application/json", status, headers)
        await send(body_of(sent))

    return behaviour


def breaking(*events: bytes) -> Behaviour:
    """Sends these, and dies."""

    async def behaviour(_: dict[str, Any], __: Receive, send: Send) -> None:
        await begin(send, "text/event-stream")
        for one in events:
            await send(body_of(one, more=True))
        raise ConnectionError("this server dies")

    return behaviour


async def endless(_: dict[str, Any], __: Receive, send: Send) -> None:
    """Sends more bytes than anybody should take, and no line's end among them."""
    await begin(send, "text/event-stream")
    for _ in range(1024):
        await send(body_of(b"x" * (1 << 16), more=True))
        await asyncio.sleep(0)  # to a caller who has left, uvicorn sends without waiting


async def begin(send: Send, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
    named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in (headers or {}).items()}}
    pairs = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def body_of(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def event(question: dict[str, Any], text: str, finish: str | None = None) -> bytes:
    """A piece of an answer."""
    own = {"text": text} if "prompt" in question else {"delta": {"content": text}}
    return b"data: " + json.dumps({"choices": [{**own, "finish_reason": finish}]}).encode() + b"\n\n"
