"""The one place where the rooms are put together."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

import demo
from demo.suites import SUITES
from editors.errors import EditorError
from editors.model.loading import BaseModel, load_base, load_counterfactual, resolve_device
from editors.serac.cross_encoder import load_scope
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import ScopeClassifier, SimilarityScope
from service.actions import bakes, checkpoints, evaluations, expiries, receipts
from service.actions.services import Services
from service.errors import StartupError
from service.runtime.baker import ModelBaker
from service.runtime.cached_answers import made_by
from service.runtime.elsewhere import NoBaker, adapters_of, upstream_of
from service.runtime.follower import follow
from service.runtime.keyring import LiveKeyring, keep_current
from service.runtime.line import Line
from service.runtime.live_memory import LiveMemory
from service.runtime.runtime import ModelRuntime
from service.runtime.snapshot import MemoryFile, save_regularly
from service.runtime.upstream import UpstreamEngine
from service.settings import Settings, is_loopback
from service.store.answers import open_answers
from service.store.artifacts import ArtifactStore
from service.store.embedded import EmbeddedPostgres
from service.store.jobs import BAKE, EVALUATE, Job, work
from service.store.listener import listen
from service.store.migrate import migrate
from service.store.store import PostgresStore

BUNDLED = "bundled"
"""In place of a counterfactual model's name: the one that comes along."""


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open the database and the model, bring the live memory up to date, and keep it so while the block runs.

    Queued jobs are done meanwhile, one at a time, unless the settings leave them to `errata worker`.

    Raises:
        StartupError: The data directory, the database or the model cannot be used, or others could reach the service
            and it has no API key.
    """
    with ExitStack() as stack:
        # The database first: it is quick, and a data directory in use should be known before a model is loaded.
        url = settings.database_url or await asyncio.to_thread(stack.enter_context, EmbeddedPostgres(settings.data_dir))
        await asyncio.to_thread(migrate, url)
        artifacts = await asyncio.to_thread(
            ArtifactStore, settings.artifacts_url or str(settings.data_dir / "artifacts")
        )
        keyring = await _keyring(url, settings)
        builder = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="index"))
        elsewhere = upstream_of(settings)
        adapters = adapters_of(settings, elsewhere)
        base, counterfactual, memory = await asyncio.to_thread(_load, settings, builder, elsewhere)
        # Reading every tensor takes a while: only where others are told of the answers must it be said who wrote them.
        by = partial(made_by, base, counterfactual, layout_bytes=settings.layout_bytes)
        maker = await asyncio.to_thread(by) if settings.redis_url else ""
        async with (
            PostgresStore(url) as store,
            open_answers(settings, made_by=maker) as cache,
            elsewhere or nullcontext(),
        ):
            runtime = ModelRuntime(
                base,
                memory,
                store,
                artifacts,
                catch_up_seconds=settings.catch_up_seconds,
                suites=SUITES,
                counterfactual=counterfactual,
                file=MemoryFile(settings.data_dir / "memory.npz"),
                cache=cache,
                line=Line(running=settings.batch, waiting=settings.queue),
                layout_bytes=settings.layout_bytes,
                adapters=adapters,
            )
            stack.callback(runtime.close)
            await runtime.start()
            baker = _baker(base, settings)
            stack.callback(baker.close)
            services = Services(store, runtime, baker, artifacts, keyring, cache)
            heard = asyncio.Event()
            working = [work(url, jobs(services))] if settings.jobs else []
            async with _beside(
                listen(url, heard),
                follow(runtime, heard),
                keep_current(keyring, store),
                save_regularly(runtime.save),
                checkpoints.audit(services),
                expiries.watch(services),
                receipts.forget_regularly(store),
                *working,
                *([elsewhere.watch()] if elsewhere else []),
                *([adapters.watch()] if adapters else []),
            ):
                yield services


def jobs(services: Services) -> Mapping[str, Job]:
    """Every kind of job that can be done on these services, and how; bakes are left to those that have the weights."""
    evaluating = Job(run=partial(evaluations.run, services), give_up=partial(evaluations.give_up, services))
    baking = Job(run=partial(bakes.run, services), give_up=partial(bakes.give_up, services))
    return {EVALUATE: evaluating} | ({} if isinstance(services.baker, NoBaker) else {BAKE: baking})


async def _keyring(url: str, settings: Settings) -> LiveKeyring:
    """The keys, read before anything slow.

    Raises:
        StartupError: Other machines could reach the service, and no key would open it.
    """
    keyring = LiveKeyring(always=not is_loopback(settings.host))
    async with PostgresStore(url) as store:
        await keyring.look(store)
    if not is_loopback(settings.host) and not keyring.usable:
        raise StartupError(
            f"ERRATA_HOST is {settings.host!r}, which other machines can reach, and there is no API key in force.",
            hint="Make one with `errata keys create NAME --scope SCOPE`, with the same ERRATA_* variables as here, or "
            "listen on 127.0.0.1. docs/security.md says more.",
        )
    return keyring


@asynccontextmanager
async def _beside(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let these run while the block does, and wait for their end."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _assets(settings: Settings) -> list[Path]:
    """Folders with key statistics and trained editors."""
    own = settings.assets or settings.data_dir / "assets"
    return [own] if settings.base_model else [own, demo.MEND.parent, demo.STATISTICS]


def _baker(base: BaseModel | UpstreamEngine, settings: Settings) -> ModelBaker | NoBaker:
    """What bakes, where there are weights to bake into."""
    if isinstance(base, UpstreamEngine):
        return NoBaker(base.model, settings.base_fingerprint)
    return ModelBaker(base, suites=SUITES, assets=_assets(settings))


def _load(
    settings: Settings, builder: Executor, elsewhere: UpstreamEngine | None
) -> tuple[BaseModel | UpstreamEngine, BaseModel | None, LiveMemory]:
    """The base model, the counterfactual model where it is another, and the empty memory."""
    if not sys.stderr.isatty():
        disable_progress_bar()  # it belongs on a terminal, not in a log
    if settings.threads:
        torch.set_num_threads(settings.threads)
    name: str | Path = settings.base_model or demo.BUNDLE
    try:
        device = str(resolve_device(settings.device))
        base = elsewhere or load_base(name, device=device, dtype=settings.dtype)
        reads = _reads(settings)
        counterfactual = reads and load_counterfactual(reads, device=device, dtype=settings.dtype)
        classifier = _classifier(Path(settings.scope_classifier or demo.SCOPE_CLASSIFIER), device)
    except EditorError as error:
        raise StartupError(error.detail, hint=error.hint) from error
    memory = LiveMemory(
        SentenceEncoder(device=device),
        classifier,
        candidates=settings.scope_candidates,
        threshold=settings.scope_threshold,
        builder=builder,
    )
    return base, counterfactual or None, memory


def _reads(settings: Settings) -> str | Path | None:
    """The counterfactual model; None where the base reads edits itself."""
    if settings.counterfactual_model == BUNDLED:
        return demo.COUNTERFACTUAL
    if settings.counterfactual_model:
        return settings.counterfactual_model
    return None if settings.base_model or settings.base_url else demo.COUNTERFACTUAL


def _classifier(path: Path, device: str) -> ScopeClassifier:
    """A trained cross-encoder, or the calibration of a similarity, as JSON."""
    return SimilarityScope.load(path) if path.suffix == ".json" else load_scope(path, device=device)
