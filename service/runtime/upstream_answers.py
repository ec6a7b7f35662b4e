"""What an OpenAI-compatible server is asked, and what its answers say. Nothing that it sends is trusted to be one.

Members that are not known here are passed over: every server adds its own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.domain.generations import FinishReason, Sampling, Usage
from service.errors import UpstreamInvalid, UpstreamUnavailable
from service.runtime.completions import Completion, Prompt

_ROOM = 1 << 20
_ROOM_OF_A_TOKEN = 4096
_MOST_TOKENS = 2**31 - 1
_DONE = b"[DONE]"


class _Sent(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Said(_Sent):
    content: str | None = None


class _Choice(_Sent):
    """`text` of a prompt's answer, `message` of a conversation's, `delta` of a piece of that."""

    text: str | None = None
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> str | None:
        """What it adds to the answer; None where it is no answer at all."""
        turn = self.message or self.delta
        return self.text if turn is None else turn.content or ""


class _Usage(_Sent):
    prompt_tokens: int = Field(0, ge=0, le=_MOST_TOKENS)
    completion_tokens: int = Field(0, ge=0, le=_MOST_TOKENS)


class _Document(_Sent):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


def question(model: str, prompt: Prompt, sampling: Sampling, *, stream: bool) -> tuple[str, dict[str, object]]:
    """The path, below `/v1`, and the body that have a prompt or a conversation answered."""
    body: dict[str, object] = {"model": model, "temperature": sampling.temperature}
    if isinstance(prompt, str) or not sampling.unlimited:  # else as many as there is room for, which that server knows
        body["max_tokens"] = sampling.max_new_tokens
    if sampling.top_p < 1:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if isinstance(prompt, str):
        return "/completions", {**body, "prompt": prompt}
    return "/chat/completions", {
        **body,
        "messages": [{"role": turn.role, "content": turn.content} for turn in prompt],
    }


async def bounded(chunks: AsyncIterator[bytes], *, tokens: int) -> AsyncIterator[bytes]:
    """These bytes, as long as they can be an answer of so many tokens.

    Raises:
        UpstreamInvalid: There are more.
    """
    left = _ROOM + _ROOM_OF_A_TOKEN * tokens
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise UpstreamInvalid("The base model's server sent far more than an answer of that length takes.")
        yield chunk


async def whole(chunks: AsyncIterator[bytes]) -> Completion:
    """An answer that comes at once.

    Raises:
        UpstreamInvalid: It is none.
        UpstreamUnavailable: It says that the server failed.
    """
    document = _read(b"".join([chunk async for chunk in chunks]))
    said = document.choices[0].said if document.choices else None
    if said is None:
        raise UpstreamInvalid("The base model's server sent a document without an answer.")
    return Completion(said, _usage(document.usage), _finish(document.choices[0].finish_reason))


async def pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[str | Completion]:
    """An answer that comes as server-sent events: pieces of its text, as early as they are there, and all of it.

    Raises:
        UpstreamInvalid: An event is no piece of an answer.
        UpstreamUnavailable: They end before the answer does, or say that the server failed.
    """
    texts: list[str] = []
    finished: str | None = None
    usage: _Usage | None = None
    first_at: float | None = None
    async for data in _events(chunks):
        document = _read(data)
        usage = document.usage or usage
        for choice in document.choices[:1]:
            finished = choice.finish_reason or finished
            if choice.said:
                first_at = first_at or time.perf_counter()
                texts.append(choice.said)
                yield choice.said
    if finished is None:
        raise UpstreamUnavailable("The base model's server broke off in the middle of its answer.")
    yield Completion("".join(texts), _usage(usage), _finish(finished), first_at)
    async for _ in chunks:  # to the end, or the connection could not serve the next request
        pass


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event, until the one that says that there are no more."""
    data: list[bytes] = []
    async for line in _lines(chunks):
        if line.startswith(b"data:"):
            data.append(line[len(b"data:") :].strip())
        elif not line and data:
            event, data = b"\n".join(data), []
            if event == _DONE:
                return
            yield event


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = bytearray()
    async for chunk in chunks:
        searched = len(rest)
        rest += chunk
        begin = 0
        while (end := rest.find(b"\n", max(begin, searched))) >= 0:
            yield bytes(rest[begin:end]).rstrip(b"\r")
            begin = end + 1
        del rest[:begin]


def _read(sent: bytes) -> _Document:
    try:
        document = _Document.model_validate_json(sent)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = "/".join(map(str, first["loc"]))
        raise UpstreamInvalid(
            f"The base model's server sent what is no answer: {where and f'{where}: '}{first['msg'].lower()}."
        ) from None
    if document.error is not None:
        raise UpstreamUnavailable("The base model's server failed in the middle of its answer.")
    return document


def _usage(sent: _Usage | None) -> Usage:
    """As it says; nothing where it says nothing."""
    sent = sent or _Usage()
    return Usage(prompt_tokens=sent.prompt_tokens, completion_tokens=sent.completion_tokens)


def _finish(reason: str | None) -> FinishReason:
    return FinishReason.LENGTH if reason == "length" else FinishReason.STOP
