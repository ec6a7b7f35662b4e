"""Answers: a version's own, an edit's word for word, or the counterfactual model's that reads the edit."""

from __future__ import annotations

from editors.edit import EditDescriptor
from editors.serac.counterfactual import in_context, in_context_messages
from service.domain.edits import AnswerMode, Edit
from service.domain.generations import FinishReason, GenerationRequest, Message, Usage
from service.runtime.descriptors import edit_descriptor
from service.runtime.engine import Completion, TransformersEngine
from service.runtime.owner import Owner


class Answers:
    """Writes answers on the model's thread.

    Args:
        base: Generates with the base model.
        reader: Generates with the counterfactual model. Where that is the base, it is so beside every version: what an
            edit answers does not depend on them.
        owner: The thread of them all.
    """

    def __init__(self, base: TransformersEngine, reader: TransformersEngine, owner: Owner) -> None:
        self._base = base
        self._reader = reader
        self._owner = owner

    async def answer(self, request: GenerationRequest, engine: TransformersEngine, edit: Edit | None) -> Completion:
        """Let an edit answer, or the version of an engine.

        Raises:
            PromptTooLong: Prompt and answer do not fit in the context.
            NoChatTemplate: Messages were sent to a base that has no chat template.
        """
        if edit is None:
            return await self._owner.run(_unedited, request, engine)
        if edit.descriptor.answer is AnswerMode.VERBATIM:
            return Completion(edit.descriptor.target, Usage(prompt_tokens=0, completion_tokens=0), FinishReason.STOP)
        return await self._owner.run(self._edited, request, edit_descriptor(edit.descriptor))

    def _edited(self, request: GenerationRequest, descriptor: EditDescriptor) -> Completion:
        if request.prompt is not None or self._reader is not self._base:
            # A model trained to read edits reads one question; a conversation is for a base that converses.
            return self._reader.complete(in_context(descriptor, question_of(request)), request.sampling)
        turns = [{"role": message.role, "content": message.content} for message in request.messages]
        messages = tuple(Message(**turn) for turn in in_context_messages(descriptor, turns))
        return self._base.complete(self._base.render(messages), request.sampling, rendered=True)


def question_of(request: GenerationRequest) -> str:
    """What scope is judged on: the prompt, or the last thing the user said."""
    if request.prompt is not None:
        return request.prompt
    said = [message.content for message in request.messages if message.role == "user"]
    return said[-1] if said else request.messages[-1].content


def _unedited(request: GenerationRequest, engine: TransformersEngine) -> Completion:
    if request.prompt is not None:
        return engine.complete(request.prompt, request.sampling)
    return engine.complete(engine.render(request.messages), request.sampling, rendered=True)
