"""Between the domain's descriptor, as it is kept, and the editors' forms, as algorithms read it."""

from __future__ import annotations

from editors.edit import Claim, EditDescriptor, QuestionAnswer, Sentiment, Statement
from service.domain.edits import Descriptor, EditKind


def edit_descriptor(kept: Descriptor) -> EditDescriptor:
    """The form of z_e that the algorithms read."""
    match kept.kind:
        case EditKind.QA:
            return QuestionAnswer(kept.prompt, kept.target, kept.subject)
        case EditKind.FACT:
            return Claim(kept.prompt, kept.target == "True")
        case EditKind.STATEMENT:
            return Statement(kept.prompt)
        case EditKind.SENTIMENT:
            return Sentiment(kept.prompt, kept.target == "positive")
