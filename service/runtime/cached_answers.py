"""Answers through the cache. Which edit answers is decided afresh each time; only writing the text is spared.

An answer is kept only where it is the same each time: greedy, or with a seed, of a model that is here. Its key holds
all that it depends on (docs/decisions/0013): a base answer's the weights and the question, an edited one's the edit as
it is and the question. So no edit ever invalidates a base answer, and a changed edit is another one at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers

from editors.model.loading import BaseModel
from service import __version__
from service.domain.answers import AnswerCache, KeptAnswer
from service.domain.edits import AnswerMode, Edit
from service.domain.generations import GenerationRequest, Sampling
from service.domain.ports import Store
from service.domain.versions import BASE_VERSION
from service.errors import StoreUnavailable
from service.runtime.answers import Answers
from service.runtime.completions import AtOnce, Completion, Pieces
from service.runtime.descriptors import edit_descriptor
from service.runtime.upstream import UpstreamEngine
from service.runtime.versions import LiveVersion


@dataclass(slots=True, eq=False)
class _Writing:
    """An answer that is being written, and how many wait for it."""

    task: asyncio.Task[Completion]
    waiting: int = 0


class CachedAnswers:
    """Writes answers, or finds them; of equal requests at one time, one writes for all. Belongs to one event loop.

    Args:
        answers: Writes them.
        cache: Keeps them; None when they are always to be written.
        store: Knows what the weights of a version are, which its name does not tell once a database has been restored.
    """

    def __init__(self, answers: Answers, cache: AnswerCache | None, store: Store) -> None:
        self._answers = answers
        self._cache = cache
        self._store = store
        self._weights = {BASE_VERSION: BASE_VERSION}
        self._writing: dict[str, _Writing] = {}

    async def answer(self, request: GenerationRequest, version: LiveVersion, edit: Edit | None) -> Completion:
        """Let an edit answer, or a version; raises as `Answers.answer`."""
        key = None if self._cache is None else await self._key(request, version, edit)
        if key is None or self._cache is None:
            return await self._answers.answer(request, version.engine, edit)
        kept = await self._cache.get(key)
        if kept is not None:
            return _completion(kept)
        writing = self._writing.get(key)
        if writing is None:
            task = asyncio.create_task(self._written(key, self._cache, request, version, edit))
            writing = self._writing[key] = _Writing(task)
            task.add_done_callback(lambda _: self._over(key, writing))
        return await self._shared(key, writing)

    async def stream(self, request: GenerationRequest, version: LiveVersion, edit: Edit | None) -> Pieces:
        """The same answer, piece by piece; raises as `Answers.stream`."""
        key = None if self._cache is None else await self._key(request, version, edit)
        if key is None or self._cache is None:
            return await self._answers.stream(request, version.engine, edit)
        kept = await self._cache.get(key)
        if kept is not None:
            return AtOnce(_completion(kept))
        return _Keeping(await self._answers.stream(request, version.engine, edit), key, self._cache)

    async def _shared(self, key: str, writing: _Writing) -> Completion:
        """What is being written; who gives up waiting does not stop it for the others, the last one does."""
        writing.waiting += 1
        try:
            return await asyncio.shield(writing.task)
        finally:
            writing.waiting -= 1
            if not writing.waiting:
                self._over(key, writing)
                writing.task.cancel()

    async def _written(
        self, key: str, cache: AnswerCache, request: GenerationRequest, version: LiveVersion, edit: Edit | None
    ) -> Completion:
        completion = await self._answers.answer(request, version.engine, edit)
        await cache.put(key, _kept(completion))
        return completion

    def _over(self, key: str, writing: _Writing) -> None:
        """Nobody may join any more."""
        if self._writing.get(key) is writing:
            del self._writing[key]
        if writing.task.done() and not writing.task.cancelled():
            writing.task.exception()  # seen, also where nobody waits any more

    async def _key(self, request: GenerationRequest, version: LiveVersion, edit: Edit | None) -> str | None:
        """What the answer depends on, beside the models; None when it is not to be kept."""
        how = _repeatable(request.sampling)
        if how is None or not self._answers.are_lasting(version.engine, edit):
            return None
        if edit is None:
            weights = await self._weights_now(version.id)
            return None if weights is None else _digest({"weights": weights, **_asked(request), **how})
        if edit.descriptor.answer is AnswerMode.VERBATIM:
            return None  # there is nothing to write
        read = edit_descriptor(edit.descriptor)
        described = {"form": type(read).__name__, **asdict(read)}  # a preview's edit has no revision of its own
        by = {"edit": edit.id, "revision": edit.revision, "descriptor": described}
        return _digest({**by, **_asked(request), **how})

    async def _weights_now(self, version_id: str) -> str | None:
        """What a version's weights are; None when the database, which knows, does not answer."""
        if version_id not in self._weights:
            try:
                async with self._store.reading() as reading:
                    kept = await reading.versions.get(version_id)
            except StoreUnavailable:
                return None
            assert kept is not None and kept.artifact is not None, "it answers, so it was baked"
            self._weights[version_id] = kept.artifact.digest
        return self._weights[version_id]


class _Keeping:
    """The pieces of an answer that is kept when it is whole."""

    def __init__(self, pieces: Pieces, key: str, cache: AnswerCache) -> None:
        self._pieces = pieces
        self._key = key
        self._cache = cache

    async def __aiter__(self) -> AsyncIterator[str | Completion]:
        async for piece in self._pieces:
            if isinstance(piece, Completion):
                await self._cache.put(self._key, _kept(piece))
            yield piece

    def close(self) -> None:
        """Give up what has not been written yet."""
        self._pieces.close()


def _kept(completion: Completion) -> KeptAnswer:
    return KeptAnswer(text=completion.text, usage=completion.usage, finish_reason=completion.finish_reason)


def _completion(kept: KeptAnswer) -> Completion:
    return Completion(kept.text, kept.usage, kept.finish_reason)


def made_by(base: BaseModel | UpstreamEngine, counterfactual: BaseModel | None, *, layout_bytes: int = 0) -> str:
    """What writes answers here, as a digest; replicas for which it is the same write the same. Reads every tensor.

    How much may be laid out for quick products is part of it: those are rounded otherwise.

    A base elsewhere is not part of it: what that writes is not kept.
    """
    models = [_described(model) for model in (base, counterfactual or base) if isinstance(model, BaseModel)]
    software = [__version__, torch.__version__, transformers.__version__]
    return _digest({"models": models, "software": software, "layout_bytes": layout_bytes})


def _described(model: BaseModel) -> dict[str, str]:
    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return {
        "fingerprint": model.fingerprint,
        "numbers": f"{model.dtype} on {model.device.type}",
        "tokenizer": backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True),
        "template": str(tokenizer.chat_template),
        "ends": str(model.model.generation_config.eos_token_id),
    }


def _repeatable(sampling: Sampling) -> dict[str, Any] | None:
    """What the answer depends on of its sampling; None when it is another each time."""
    how: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "fitted": sampling.fitted,
        "stop": sampling.stop,
    }
    if sampling.temperature == 0:
        return how
    if sampling.seed is None:
        return None
    return how | {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}


def _asked(request: GenerationRequest) -> dict[str, Any]:
    if request.prompt is not None:
        return {"prompt": request.prompt}
    return {"messages": [asdict(message) for message in request.messages]}


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=32).hexdigest()
