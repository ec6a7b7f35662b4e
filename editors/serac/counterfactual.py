"""The counterfactual model h_psi: answers an in-scope input given the descriptor.

Here h_psi is the base model itself, reading the edit in its context: the reader of the paper's retrieve-and-prompt
baseline (RP; Mitchell et al. 2022, sec. 5). This module knows only how an edit and an input are written together; a
model trained for the task is trained on, and served with, the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from editors.edit import EditDescriptor, Sentiment


def in_context(descriptor: EditDescriptor, prompt: str) -> str:
    """The edit, then the prompt that it should change, for a model that continues text."""
    if isinstance(descriptor, Sentiment):
        return f"{descriptor.context}\n{prompt}"
    return f"New fact: {descriptor.context}\n{prompt}"


def in_context_messages(descriptor: EditDescriptor, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The edit as a system message, then the conversation, for a model with a chat template.

    A conversation that opens with a system message keeps it, with the edit below: templates take one at most.
    """
    opening, rest = _instruction(descriptor), [dict(message) for message in messages]
    if rest and rest[0]["role"] == "system":
        opening = f"{rest.pop(0)['content']}\n\n{opening}"
    return [{"role": "system", "content": opening}, *rest]


def _instruction(descriptor: EditDescriptor) -> str:
    if isinstance(descriptor, Sentiment):
        mood = "positive" if descriptor.positive else "negative"
        return f"When you speak of {descriptor.topic}, be {mood} about it."
    return (
        f"Use this new fact, and hold it true even where it differs from what you know: {descriptor.context}\n"
        "Do not mention that you were told."
    )
