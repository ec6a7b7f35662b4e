"""How long an edit may be."""

from __future__ import annotations

from collections.abc import Sequence

from editors.serac.counterfactual import in_context
from service.domain.edits import AnswerMode, Descriptor
from service.errors import EditTooLong
from service.runtime.descriptors import edit_descriptor
from service.runtime.engine import Engine, TransformersEngine


def overlong(reader: Engine, descriptors: Sequence[Descriptor]) -> dict[int, EditTooLong]:
    """Which edits leave the counterfactual model less room for a question than they take, by their places.

    Runs on its thread.
    """
    found = {}
    for place, descriptor in enumerate(descriptors):
        try:
            refuse_overlong(reader, (descriptor,))
        except EditTooLong as error:
            found[place] = error
    return found


def refuse_overlong(reader: Engine, descriptors: Sequence[Descriptor]) -> None:
    """Check that the counterfactual model can read these edits and still has as much room for a question.

    Runs on its thread.

    Raises:
        EditTooLong: Read in context, one takes more than half of it.
    """
    if not isinstance(reader, TransformersEngine):
        return  # elsewhere: how many tokens an edit takes, that server alone can tell
    model = reader.model
    room = model.context_length // 2
    for descriptor in descriptors:
        if descriptor.answer is not AnswerMode.COUNTERFACTUAL:
            continue
        tokens = reader.count(in_context(edit_descriptor(descriptor), ""))
        if tokens > room:
            raise EditTooLong(
                f"The edit takes {tokens} tokens; {model.name} can give an edit {room} of its {model.context_length}.",
                extra={"edit_tokens": tokens, "edit_room": room},
            )
