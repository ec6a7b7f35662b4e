"""The door of generations."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from service.actions import generations
from service.api.bodies import Body, Door, JsonRoute, Name, StopString, Text
from service.api.guard import needs
from service.api.problem_documents import problem_responses
from service.api.streams import LEFT, AnswerStream, problem_event, unless_gone
from service.domain.generations import (
    FinishReason,
    Generation,
    GenerationRequest,
    Message,
    Sampling,
    Source,
    Stream,
    Usage,
)
from service.domain.keys import KeyScope
from service.errors import (
    UPSTREAM,
    ArtifactDamaged,
    ArtifactsUnavailable,
    BaseMismatch,
    EngineFailed,
    Invalid,
    MalformedJson,
    NoAdapter,
    NoChatTemplate,
    NotCaughtUp,
    PromptTooLong,
    QueueFull,
    RateLimited,
    ShuttingDown,
    StorageFull,
    StoreUnavailable,
    UnsupportedMediaType,
    VersionNotFound,
    VersionUnavailable,
    WeightsElsewhere,
)

router = APIRouter(route_class=JsonRoute, tags=["generations"])

REFUSALS = (
    MalformedJson,
    VersionNotFound,
    BaseMismatch,
    WeightsElsewhere,
    NoAdapter,
    UnsupportedMediaType,
    Invalid,
    PromptTooLong,
    NoChatTemplate,
    QueueFull,
    RateLimited,
    NotCaughtUp,
    VersionUnavailable,
    EngineFailed,
    StoreUnavailable,
    ArtifactsUnavailable,
    ShuttingDown,
    *UPSTREAM,
    StorageFull,
    ArtifactDamaged,
)
"""What can be met wherever a question is answered."""
LARGEST = 2**63 - 1
"""Of a seed, or a revision."""
MOST_TOKENS = 1024
"""Of an answer."""


class MessageBody(Body):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Text


def listed(stop: object) -> object:
    """Stop strings, of which one may come by itself."""
    return [stop] if isinstance(stop, str) else stop


class GenerateBody(Body):
    """A question to the model: a prompt, or the messages of a chat."""

    prompt: Text | None = None
    messages: list[MessageBody] | None = Field(None, min_length=1, max_length=256)
    max_new_tokens: int = Field(32, ge=1, le=MOST_TOKENS)
    temperature: float = Field(0.0, ge=0, le=2, description="0 takes the likeliest token each time.")
    top_p: float = Field(1.0, gt=0, le=1)
    stop: Annotated[
        list[StopString], Field(max_length=8), BeforeValidator(listed, json_schema_input_type=str | list[str])
    ] = Field([], description="Strings that end the answer; they are not part of it.")
    seed: int | None = Field(None, ge=0, le=LARGEST)
    stream: bool = Field(default=False, description="Answer with server-sent events, as it is written.")
    version: Name = Field("active", description="`active`, or the name of a version such as `v0`.")
    edits: bool = Field(default=True, description="Whether edits may answer.")
    min_revision: int | None = Field(None, ge=0, le=LARGEST, description="Answer with at least this revision.")

    @model_validator(mode="after")
    def _one_question(self) -> GenerateBody:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_question", "must hold exactly one of `prompt` and `messages`")
        return self

    def request(self, session: str | None) -> GenerationRequest:
        """In the domain's words."""
        return GenerationRequest(
            prompt=self.prompt,
            messages=tuple(Message(role=turn.role, content=turn.content) for turn in self.messages or ()),
            sampling=Sampling(
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                stop=tuple(self.stop),
                seed=self.seed,
            ),
            version=self.version,
            edits=self.edits,
            min_revision=self.min_revision,
            session=session,
        )


Session = Annotated[
    str | None,
    Header(
        alias="X-Session-Id",
        max_length=256,
        description="Who asks: while there is a canary, one version answers all of a session.",
    ),
]


class UsagePage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class GenerationPage(BaseModel):
    """An answer and where it came from."""

    text: str = Field(description="The continuation alone.")
    source: Source
    edit_id: str | None = Field(description="The edit that answered, if one did.")
    beta: float | None = Field(description="The highest probability that the prompt is in the scope of an edit.")
    version: str = Field(description="The version of the weights that answers what no edit does.")
    revision: int = Field(description="Of the memory that decided.")
    usage: UsagePage
    finish_reason: FinishReason


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": GenerationPage,
        "description": "The answer. With `stream`, server-sent events: `text` with each piece of it, and `end` with "
        "the whole at last, or `error` with a problem.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/generate",
    summary="Answer a prompt",
    response_model=GenerationPage,
    responses=_ANSWERS
    | problem_responses(
        *REFUSALS,
    ),
)
@needs(KeyScope.GENERATE)
async def generate(
    body: GenerateBody, services: Door, http: Request, session: Session = None
) -> GenerationPage | Response:
    """By the edit in whose scope the prompt is, or else by the model; the answer says which."""
    request = body.request(session)
    if body.stream:
        stream = await unless_gone(http, generations.stream(services, request))
        if stream is None:
            return Response(status_code=LEFT)
        return AnswerStream(_events(stream, request, http), stream.close, problem_event(http.state.request_id))
    generation = await unless_gone(http, generations.generate(services, request))
    if generation is None:
        return Response(status_code=LEFT)
    http.app.state.meters.generation(request, generation)
    return _render(generation)


async def _events(stream: Stream, request: GenerationRequest, http: Request) -> AsyncIterator[bytes]:
    async for part in stream.parts:
        if isinstance(part, Generation):
            http.app.state.meters.generation(request, part)
            yield format_sse_event(event="end", data_str=_render(part).model_dump_json())
        else:
            yield format_sse_event(event="text", data_str=json.dumps({"text": part}))


def _render(generation: Generation) -> GenerationPage:
    return GenerationPage(
        text=generation.text,
        source=generation.source,
        edit_id=generation.edit_id,
        beta=generation.beta,
        version=generation.version,
        revision=generation.revision,
        usage=render_usage(generation.usage),
        finish_reason=generation.finish_reason,
    )


def render_usage(usage: Usage) -> UsagePage:
    """Tokens, as they are sent."""
    return UsagePage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
