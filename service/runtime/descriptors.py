"""Between the domain's descriptor, as it is kept, and the editors' forms, as algorithms read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def batches(descriptors: Sequence[Descriptor], *, texts_at_once: int) -> Iterator[list[Descriptor]]:
    """The descriptors in their order, in groups of about so many texts to embed."""
    batch: list[Descriptor] = []
    texts = 0
    for descriptor in descriptors:
        batch.append(descriptor)
        texts += len(descriptor.texts)
        if texts >= texts_at_once:
            yield batch
            batch, texts = [], 0
    if batch:
        yield batch


def kept_descriptor(edit: EditDescriptor) -> Descriptor:
    """The form in which the domain keeps an edit, with nothing but its own words for a scope."""
    match edit:
        case QuestionAnswer(prompt, target, subject):
            return Descriptor(prompt=prompt, target=target, subject=subject)
        case Claim(claim, label):
            return Descriptor(kind=EditKind.FACT, prompt=claim, target=str(label))
        case Statement(statement):
            return Descriptor(kind=EditKind.STATEMENT, prompt=statement)
        case Sentiment(topic, positive):
            return Descriptor(kind=EditKind.SENTIMENT, prompt=topic, target="positive" if positive else "negative")
