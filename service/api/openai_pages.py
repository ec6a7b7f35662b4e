"""OpenAI's answers: whole, and in chunks. Ours under `edits`, which a chunk has when it is the first."""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar, Literal

from fastapi.sse import format_sse_event
from pydantic import BaseModel, Field

from service.api.generations import UsagePage, render_usage
from service.domain.generations import FinishReason, Generation, Head, Source

DONE = format_sse_event(data_str="[DONE]")


class EditsPage(BaseModel):
    """Where an answer comes from; ours, not OpenAI's."""

    source: Source
    edit_id: str | None = Field(description="The edit that answered, if one did.")
    beta: float | None = Field(description="The highest probability that the prompt is in the scope of an edit.")
    version: str = Field(description="The version of the weights that answers what no edit does.")
    revision: int = Field(description="Of the memory that decided.")


class CompletionChoice(BaseModel):
    """The one answer."""

    text: str = Field(description="The continuation alone, with the whitespace that it begins with.")
    index: int = 0
    logprobs: None = None
    finish_reason: FinishReason


class CompletionPage(BaseModel):
    """A text continued."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str = Field(description="The version that answers what no edit does.")
    choices: list[CompletionChoice]
    usage: UsagePage
    edits: EditsPage


class ChatMessage(BaseModel):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The one answer."""

    index: int = 0
    message: ChatMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatPage(BaseModel):
    """A conversation continued."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str = Field(description="The version that answers what no edit does.")
    choices: list[ChatChoice]
    usage: UsagePage
    edits: EditsPage


class Completions:
    """The answer to one request to `/v1/completions`, whole or in chunks.

    Args:
        head: Where it comes from.
        request_id: Is in its id.
        usage: Whether its chunks end with the usage.
    """

    prefix: ClassVar[str] = "cmpl"
    chunk: ClassVar[str] = "text_completion"

    def __init__(self, head: Head, request_id: str, *, usage: bool = False) -> None:
        self._head = {"id": f"{self.prefix}-{request_id}", "created": int(time.time()), "model": head.version}
        self._edits: EditsPage | None = _render_edits(head)
        self._usage = usage

    def whole(self, generation: Generation) -> CompletionPage | ChatPage:
        """All of it."""
        choice = CompletionChoice(text=generation.text, finish_reason=generation.finish_reason)
        return CompletionPage(
            **self._head, choices=[choice], usage=render_usage(generation.usage), edits=_render_edits(generation)
        )

    def opening(self) -> list[bytes]:
        """What is known before the first word."""
        return []

    def piece(self, text: str) -> bytes:
        """A piece of the text."""
        return self._sent([self._said(text, None)])

    def ending(self, generation: Generation) -> list[bytes]:
        """Why it ended, what it took if that was asked for, and that nothing follows."""
        chunks = [self._sent([self._said("", generation.finish_reason)])]
        if self._usage:
            chunks.append(self._sent([], render_usage(generation.usage)))
        return [*chunks, DONE]

    def _said(self, text: str, reason: FinishReason | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    def _sent(self, choices: list[dict[str, Any]], usage: UsagePage | None = None) -> bytes:
        chunk: dict[str, Any] = {**self._head, "object": self.chunk, "choices": choices}
        if self._usage:
            chunk["usage"] = None if usage is None else usage.model_dump()
        if self._edits is not None:
            chunk["edits"], self._edits = self._edits.model_dump(), None
        return format_sse_event(data_str=json.dumps(chunk))


class Chat(Completions):
    """The answer to one request to `/v1/chat/completions`, likewise."""

    prefix = "chatcmpl"
    chunk = "chat.completion.chunk"

    def whole(self, generation: Generation) -> ChatPage:
        """All of it."""
        choice = ChatChoice(message=ChatMessage(content=generation.text), finish_reason=generation.finish_reason)
        return ChatPage(
            **self._head, choices=[choice], usage=render_usage(generation.usage), edits=_render_edits(generation)
        )

    def opening(self) -> list[bytes]:
        """Whose turn it is."""
        return [self._sent([_turn({"role": "assistant", "content": ""}, None)])]

    def _said(self, text: str, reason: FinishReason | None) -> dict[str, Any]:
        return _turn({"content": text} if text else {}, reason)


def _turn(delta: dict[str, str], reason: FinishReason | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _render_edits(head: Head) -> EditsPage:
    return EditsPage(
        source=head.source, edit_id=head.edit_id, beta=head.beta, version=head.version, revision=head.revision
    )
