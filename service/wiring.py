"""The one place where the rooms are put together."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

import demo
from editors.errors import EditorError
from editors.model.loading import BaseModel, load_base
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import SimilarityScope
from service.actions.services import Services
from service.errors import StartupError
from service.runtime.follower import follow
from service.runtime.live_memory import LiveMemory
from service.runtime.runtime import ModelRuntime
from service.settings import Settings
from service.store.embedded import EmbeddedPostgres
from service.store.migrate import migrate
from service.store.store import PostgresStore


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open the database and the model, bring the live memory up to date, and keep it so while the block runs.

    Raises:
        StartupError: The data directory, the database or the model cannot be used.
    """
    with ExitStack() as stack:
        # The database first: it is quick, and a data directory in use should be known before a model is loaded.
        url = settings.database_url or await asyncio.to_thread(stack.enter_context, EmbeddedPostgres(settings.data_dir))
        await asyncio.to_thread(migrate, url)
        base, memory = await asyncio.to_thread(_load, settings)
        async with PostgresStore(url) as store:
            runtime = ModelRuntime(base, memory, store, catch_up_seconds=settings.catch_up_seconds)
            stack.callback(runtime.close)
            await runtime.start()
            follower = asyncio.create_task(follow(runtime), name="follower")
            try:
                yield Services(store, runtime)
            finally:
                follower.cancel()
                with suppress(asyncio.CancelledError):
                    await follower


def _load(settings: Settings) -> tuple[BaseModel, LiveMemory]:
    if not sys.stderr.isatty():
        disable_progress_bar()  # it belongs on a terminal, not in a log
    if settings.threads:
        torch.set_num_threads(settings.threads)
    name: str | Path = settings.base_model or demo.BUNDLE
    try:
        base = load_base(name, device=settings.device, dtype=settings.dtype)
        classifier = SimilarityScope.load(demo.SCOPE_CLASSIFIER)
    except EditorError as error:
        raise StartupError(error.detail, hint=error.hint) from error
    memory = LiveMemory(
        SentenceEncoder(device=str(base.device)),
        classifier,
        candidates=settings.scope_candidates,
        threshold=settings.scope_threshold,
    )
    return base, memory
