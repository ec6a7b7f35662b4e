"""The doors of generations as OpenAI's clients know them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel

from service.actions import generations, models
from service.actions.services import Services
from service.api.bodies import Door, JsonRoute
from service.api.generations import REFUSALS, Session
from service.api.guard import needs
from service.api.openai_bodies import ChatBody, CompletionBody
from service.api.openai_errors import error_document, error_responses
from service.api.openai_pages import Chat, ChatPage, CompletionPage, Completions
from service.api.streams import LEFT, AnswerStream, unless_gone
from service.domain.generations import Generation, GenerationRequest, Stream
from service.domain.keys import KeyScope
from service.errors import ErrataError

router = APIRouter(route_class=JsonRoute, tags=["openai"])


def _answers(page: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "model": page,
            "description": "The answer. With `stream`, server-sent events: chunks, and `[DONE]` at last, or an error.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }


@router.post(
    "/v1/completions",
    summary="Continue a text, as OpenAI's clients ask for it",
    response_model=CompletionPage,
    responses=_answers(CompletionPage) | error_responses(*REFUSALS),
)
@needs(KeyScope.GENERATE)
async def create_completion(
    body: CompletionBody, services: Door, http: Request, session: Session = None
) -> BaseModel | Response:
    """By the edit in whose scope the prompt is, or else by the model; `edits` in the answer says which."""
    request = body.request(models.version_of(services, body.model), session)
    return await _answered(services, http, request, Completions, stream=bool(body.stream), usage=body.wants_usage)


@router.post(
    "/v1/chat/completions",
    summary="Continue a conversation, as OpenAI's clients ask for it",
    response_model=ChatPage,
    responses=_answers(ChatPage) | error_responses(*REFUSALS),
)
@needs(KeyScope.GENERATE)
async def create_chat_completion(
    body: ChatBody, services: Door, http: Request, session: Session = None
) -> BaseModel | Response:
    """By the edit in whose scope the user's last message is, or else by the model; `edits` in the answer says which."""
    request = body.request(models.version_of(services, body.model), session)
    return await _answered(services, http, request, Chat, stream=bool(body.stream), usage=body.wants_usage)


async def _answered(
    services: Services,
    http: Request,
    request: GenerationRequest,
    shape: type[Completions],
    *,
    stream: bool,
    usage: bool,
) -> BaseModel | Response:
    request_id = http.state.request_id
    if stream:
        begun = await unless_gone(http, generations.stream(services, request))
        if begun is None:
            return Response(status_code=LEFT)
        answer = shape(begun.head, request_id, usage=usage)
        return AnswerStream(_events(begun, request, http, answer), begun.close, _error_event)
    generation = await unless_gone(http, generations.generate(services, request))
    if generation is None:
        return Response(status_code=LEFT)
    http.app.state.meters.generation(request, generation)
    return shape(generation, request_id).whole(generation)


async def _events(
    stream: Stream, request: GenerationRequest, http: Request, answer: Completions
) -> AsyncIterator[bytes]:
    for event in answer.opening():
        yield event
    async for part in stream.parts:
        if isinstance(part, Generation):
            http.app.state.meters.generation(request, part)
            for event in answer.ending(part):
                yield event
        else:
            yield answer.piece(part)


def _error_event(error: ErrataError) -> bytes:
    """What OpenAI's clients raise in the middle of a stream; no `[DONE]` follows."""
    return format_sse_event(data_str=error_document(error).decode("ascii"))
