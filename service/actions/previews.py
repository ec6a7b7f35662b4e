"""Previews: what an edit would change. Nothing is kept."""

from __future__ import annotations

from service.actions.edits import in_the_way, replaceable
from service.actions.services import Services
from service.domain.edits import NewEdit
from service.domain.generations import Sampling
from service.domain.previews import Preview


async def preview(services: Services, new: NewEdit, probes: tuple[str, ...], sampling: Sampling) -> Preview:
    """Answer the probes without the edit and with it.

    Raises:
        EditTooLong: It does not fit in the model's context.
        EditNotFound: The edit to supersede is not there.
        PromptTooLong: A probe and its answer do not fit in the context.
        QueueFull: As many requests wait for the model as may.
        EngineFailed: The model failed; it is being brought back.
    """
    embeddings = await services.runtime.prepare(new.descriptor)
    async with services.store.reading() as reading:
        old = None if new.supersedes is None else await replaceable(reading, new.supersedes)
        conflict = await in_the_way(reading, new.descriptor, apart_from=(new.supersedes,))
    without = frozenset(edit.id for edit in (old, conflict) if edit is not None)
    answered = await services.runtime.preview(new.descriptor, embeddings, probes, without=without, sampling=sampling)
    return Preview(conflict=conflict, probes=tuple(answered))
