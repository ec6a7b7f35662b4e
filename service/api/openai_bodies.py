"""The bodies of OpenAI's requests. What would change an answer and cannot be done here is refused by name.

A field that is null, or says that nothing is wanted (`n: 1`, a penalty of 0, no tools), is as good as left out: clients
send such fields without being asked.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from service.api.bodies import Body, StopString, Text
from service.api.generations import LARGEST, MOST_TOKENS, listed
from service.domain.generations import ACTIVE, GenerationRequest, Message, Sampling

COMPLETION_TOKENS = 16
"""Of a completion that does not say how many: OpenAI's own number."""
MOST_ASKED = 1 << 20
"""Tokens that may be asked for, which is more than any context holds: clients ask for thousands by habit."""

LongName = Annotated[str, Field(min_length=1, max_length=256)]


class Only:
    """The type of a field that may be null or one of these values, which change nothing."""

    def __init__(self, *off: object) -> None:
        self._off = off

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """Check it."""
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe it."""
        return {"enum": [None, *self._off]}

    def _checked(self, value: object) -> None:
        if value is None or any(type(value) is type(one) and value == one for one in self._off):  # 0 is not false
            return
        allowed = " or ".join(json.dumps(one) for one in (None, *self._off))
        raise PydanticCustomError(
            "unsupported", "is not supported here: leave it out, or send {allowed}", {"allowed": allowed}
        )


Nothing = Annotated[None, Only()]
One = Annotated[None, Only(1)]
Zero = Annotated[None, Only(0, 0.0)]
No = Annotated[None, Only(False)]  # noqa: FBT003 - a value, not a switch
Ignored = Annotated[Any, Field(description="Taken, and changes nothing.")]


class EditsBody(Body):
    """What is asked of the edits; ours, not OpenAI's."""

    enabled: bool = Field(default=True, description="Whether edits may answer.")
    min_revision: int | None = Field(None, ge=0, le=LARGEST, description="Answer with at least this revision.")


class StreamOptionsBody(Body):
    """What a stream holds besides."""

    include_usage: bool | None = Field(None, description="End with a chunk that has no choices, and the usage.")
    include_obfuscation: No = None


class OpenAIBody(Body):
    """What both kinds of requests have in common."""

    model: LongName = Field(ACTIVE, description="`active`, the base's own name, or a version such as `v0`.")
    temperature: float | None = Field(None, ge=0, le=2, description="0, when left out, takes the likeliest token.")
    top_p: float | None = Field(None, gt=0, le=1)
    stop: Annotated[
        list[StopString] | None,
        Field(max_length=8),
        BeforeValidator(listed, json_schema_input_type=str | list[str] | None),
    ] = Field(None, description="Strings that end the answer; they are not part of it.")
    seed: int | None = Field(None, ge=0, le=LARGEST)
    stream: bool | None = Field(None, description="Answer with server-sent events, as it is written.")
    stream_options: StreamOptionsBody | None = None
    edits: EditsBody | None = None
    n: One = None
    frequency_penalty: Zero = None
    presence_penalty: Zero = None
    logit_bias: Annotated[None, Only({})] = None
    user: Ignored = None
    metadata: Ignored = None
    store: No = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def _edits(self) -> EditsBody:
        return self.edits or EditsBody()

    def _sampling(self, max_tokens: int | None, otherwise: int) -> Sampling:
        """How tokens are chosen; `otherwise` is how many where the caller did not say."""
        return Sampling(
            max_new_tokens=otherwise if max_tokens is None else max_tokens,
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            fitted=True,
            unlimited=max_tokens is None,
        )


def _one_text(prompt: object) -> object:
    """A prompt out of the ways in which OpenAI lets one be written."""
    if not isinstance(prompt, list):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    raise PydanticCustomError(
        "one_prompt", "must be one text: send each of several in a request of its own, and no token ids"
    )


class CompletionBody(OpenAIBody):
    """A text to continue."""

    prompt: Annotated[Text, BeforeValidator(_one_text, json_schema_input_type=str | list[str])]
    max_tokens: int | None = Field(None, ge=1, le=MOST_ASKED)
    best_of: One = None
    echo: No = None
    logprobs: Nothing = None
    suffix: Annotated[None, Only("")] = None

    def request(self, version: str, session: str | None) -> GenerationRequest:
        """In the domain's words; the answer continues the prompt, whitespace and all."""
        return GenerationRequest(
            prompt=self.prompt,
            sampling=self._sampling(self.max_tokens, COMPLETION_TOKENS),
            version=version,
            edits=self._edits.enabled,
            min_revision=self._edits.min_revision,
            session=session,
            stripped=False,
        )


def _joined(content: object) -> object:
    """The text of a content in parts."""
    if not isinstance(content, list):
        return content
    texts = [part["text"] for part in content if _is_text(part)]
    if len(texts) < len(content):
        raise PydanticCustomError("text_parts", "must be a text, or parts of the type text")
    return "\n".join(texts)


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.keys() == {"type", "text"} and isinstance(part["text"], str)


class ChatMessageBody(Body):
    """One turn of a chat; as it was answered, it can be sent back."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Text, BeforeValidator(_joined, json_schema_input_type=str | list[dict[str, str]])]
    name: Nothing = None
    refusal: Nothing = None
    annotations: Annotated[None, Only([])] = None
    audio: Nothing = None
    function_call: Nothing = None
    tool_calls: Annotated[None, Only([])] = None

    def message(self) -> Message:
        """In the domain's words: templates know a developer as the system."""
        return Message(role="system" if self.role == "developer" else self.role, content=self.content)


class ChatBody(OpenAIBody):
    """A conversation to continue."""

    messages: list[ChatMessageBody] = Field(min_length=1, max_length=256)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_ASKED)
    max_tokens: int | None = Field(None, ge=1, le=MOST_ASKED, description="The former name.")
    audio: Nothing = None
    function_call: Annotated[None, Only("none")] = None
    functions: Annotated[None, Only([])] = None
    logprobs: No = None
    modalities: Annotated[None, Only(["text"])] = None
    parallel_tool_calls: Ignored = None
    prediction: Nothing = None
    prompt_cache_key: Ignored = None
    reasoning_effort: Annotated[None, Only("none")] = None
    response_format: Annotated[None, Only({"type": "text"})] = None
    safety_identifier: Ignored = None
    service_tier: Annotated[None, Only("auto", "default")] = None
    tool_choice: Annotated[None, Only("none", "auto")] = None
    tools: Annotated[None, Only([])] = None
    top_logprobs: Zero = None
    verbosity: Nothing = None
    web_search_options: Nothing = None

    @model_validator(mode="after")
    def _one_limit(self) -> ChatBody:
        if None not in {self.max_tokens, self.max_completion_tokens} and self.max_tokens != self.max_completion_tokens:
            raise PydanticCustomError("one_limit", "must hold only one of `max_completion_tokens` and `max_tokens`")
        return self

    def request(self, version: str, session: str | None) -> GenerationRequest:
        """In the domain's words; without a limit, the answer may be as long as there is room for."""
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return GenerationRequest(
            messages=tuple(turn.message() for turn in self.messages),
            sampling=self._sampling(limit, MOST_TOKENS),
            version=version,
            edits=self._edits.enabled,
            min_revision=self._edits.min_revision,
            session=session,
        )
