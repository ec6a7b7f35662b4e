"""Answers: a version's own, an edit's word for word, or the counterfactual model's that reads the edit."""

from __future__ import annotations

from editors.serac.counterfactual import in_context, in_context_messages
from service.domain.edits import AnswerMode, Descriptor, Edit
from service.domain.generations import FinishReason, GenerationRequest, Message, Usage
from service.runtime.completions import AtOnce, Completion, Pieces, Prompt
from service.runtime.descriptors import edit_descriptor
from service.runtime.engine import Engine


class Answers:
    """Has answers written.

    Args:
        base: Generates with the base model.
        reader: Generates with the counterfactual model. Where that is the base, it is so beside every version: what an
            edit answers does not depend on them.
    """

    def __init__(self, base: Engine, reader: Engine) -> None:
        self._base = base
        self._reader = reader

    async def answer(self, request: GenerationRequest, engine: Engine, edit: Edit | None) -> Completion:
        """Let an edit answer, or the version of an engine.

        Raises:
            As `Engine.write`.
        """
        if edit is not None and edit.descriptor.answer is AnswerMode.VERBATIM:
            return _verbatim(edit.descriptor)
        writer, prompt = self._asked(request, engine, edit)
        return await writer.write(prompt, request.sampling)

    async def stream(self, request: GenerationRequest, engine: Engine, edit: Edit | None) -> Pieces:
        """The same answer, piece by piece."""
        if edit is not None and edit.descriptor.answer is AnswerMode.VERBATIM:
            return AtOnce(_verbatim(edit.descriptor))
        writer, prompt = self._asked(request, engine, edit)
        return await writer.stream(prompt, request.sampling)

    def are_lasting(self, engine: Engine, edit: Edit | None) -> bool:
        """Whether the same question would always have the same answer: a model elsewhere can be another tomorrow."""
        return (engine if edit is None else self._reader).is_here

    def _asked(self, request: GenerationRequest, engine: Engine, edit: Edit | None) -> tuple[Engine, Prompt]:
        """Who is asked, and what."""
        asked = self._read(request)
        if edit is None:
            return engine, asked
        descriptor = edit_descriptor(edit.descriptor)
        if isinstance(asked, str) or self._reader is not self._base:
            # A model trained to read edits reads one question; a conversation is for a base that converses.
            return self._reader, in_context(descriptor, question_of(request))
        turns = [{"role": message.role, "content": message.content} for message in request.messages]
        return self._base, tuple(Message(**turn) for turn in in_context_messages(descriptor, turns))

    def _read(self, request: GenerationRequest) -> Prompt:
        """What is asked: a base that does not converse reads a single message of a user as a prompt (decision 0014)."""
        if request.prompt is not None:
            return request.prompt
        single = len(request.messages) == 1 and request.messages[0].role == "user"
        return request.messages[0].content if single and not self._base.converses else request.messages


def question_of(request: GenerationRequest) -> str:
    """What scope is judged on: the prompt, or the last thing the user said."""
    if request.prompt is not None:
        return request.prompt
    said = [message.content for message in request.messages if message.role == "user"]
    return said[-1] if said else request.messages[-1].content


def _verbatim(descriptor: Descriptor) -> Completion:
    return Completion(descriptor.target, Usage(prompt_tokens=0, completion_tokens=0), FinishReason.STOP)
