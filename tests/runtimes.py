"""Real runtimes on a tiny random model."""

from __future__ import annotations

from typing import Protocol

from editors.model.loading import BaseModel
from service.domain.answers import AnswerCache
from service.domain.edits import Descriptor, Edit, NewEdit
from service.runtime.adapters import Adapters
from service.runtime.runtime import ModelRuntime
from service.runtime.snapshot import MemoryFile
from service.store.store import PostgresStore


class StartRuntime(Protocol):
    """Starts a runtime on a store; the test need not close it."""

    async def __call__(
        self,
        store: PostgresStore,
        *,
        catch_up_seconds: float = ...,
        counterfactual: BaseModel | None = ...,
        file: MemoryFile | None = ...,
        cache: AnswerCache | None = ...,
        base: BaseModel = ...,
        adapters: Adapters | None = ...,
    ) -> ModelRuntime: ...


async def post(store: PostgresStore, runtime: ModelRuntime, descriptor: Descriptor, **new: object) -> Edit:
    """Prepare, commit, install."""
    embeddings = await runtime.prepare(descriptor)
    async with store.writing(actor="tester") as writing:
        edit = await writing.edits.add(NewEdit(descriptor=descriptor, **new), embeddings)
    await runtime.catch_up()
    return edit
