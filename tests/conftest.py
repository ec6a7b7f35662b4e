"""What tests share: tiny random models on disk, the real encoder, a real PostgreSQL, and runtimes on all three."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from transformers import AutoModelForCausalLM

import demo
from editors.model.loading import BaseModel, load_base
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import SimilarityScope
from service.domain.answers import AnswerCache
from service.domain.edits import Descriptor, Edit, Embeddings, NewEdit
from service.runtime.adapters import Adapters
from service.runtime.baker import ModelBaker
from service.runtime.live_memory import LiveMemory
from service.runtime.runtime import ModelRuntime
from service.runtime.snapshot import MemoryFile
from service.store.artifacts import ArtifactStore
from service.store.embedded import EmbeddedPostgres
from service.store.migrate import migrate
from service.store.store import PostgresStore
from tests.databases import Server, execute, on_database
from tests.runtimes import StartRuntime
from tests.suites import SUITES
from tests.tiny_models import CONFIGS, save_lively, tiny_tokenizer

TEMPLATE = "errata_template"
Add = Callable[..., Awaitable[Edit]]


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _logs_in_a_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a command prints is tested beside servers that log: neither stream is theirs."""
    with (tmp_path_factory.getbasetemp() / "service.log").open("w", encoding="utf-8") as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        yield
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint folder for each architecture, by model_type."""
    tokenizer = tiny_tokenizer()
    folders = {}
    for model_type, config in CONFIGS.items():
        folders[model_type] = tmp_path_factory.mktemp("models") / f"tiny-{model_type}"
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folders[model_type])
        tokenizer.save_pretrained(folders[model_type])
    return folders


@pytest.fixture(scope="session")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


@pytest.fixture(scope="session")
def tiny_base(model_folders: dict[str, Path]) -> BaseModel:
    """A loaded tiny Llama."""
    return load_base(model_folders["llama"], device="cpu")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama whose weights have something to edit."""
    return save_lively("llama", tmp_path_factory.mktemp("models") / "lively-llama")


@pytest.fixture(scope="session")
def lively_base(model_folder: Path) -> BaseModel:
    """The same, loaded."""
    return load_base(model_folder, device="cpu")


@pytest.fixture
def baker(lively_base: BaseModel) -> Iterator[ModelBaker]:
    with closing(ModelBaker(lively_base, suites=SUITES, assets=())) as baker:
        yield baker


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
async def start_runtime(
    tiny_base: BaseModel, encoder: SentenceEncoder, artifacts: ArtifactStore, anyio_backend: str
) -> AsyncIterator[StartRuntime]:
    """Starts runtimes on a store, as one process after another would."""
    runtimes: list[ModelRuntime] = []

    async def start(
        store: PostgresStore,
        *,
        catch_up_seconds: float = 60,
        counterfactual: BaseModel | None = None,
        file: MemoryFile | None = None,
        cache: AnswerCache | None = None,
        base: BaseModel = tiny_base,
        adapters: Adapters | None = None,
    ) -> ModelRuntime:
        runtime = ModelRuntime(
            base,
            LiveMemory(encoder, SimilarityScope.load(demo.SIMILARITY), candidates=8, threshold=None),
            store,
            artifacts,
            catch_up_seconds=catch_up_seconds,
            suites=SUITES,
            counterfactual=counterfactual,
            file=file,
            cache=cache,
            adapters=adapters,
        )
        runtimes.append(runtime)
        await runtime.start()
        return runtime

    yield start
    for runtime in runtimes:
        runtime.close()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory that the session's PostgreSQL holds."""
    return tmp_path_factory.mktemp("errata") / "data"


@pytest.fixture(scope="session")
def postgres(data_dir: Path) -> Iterator[Server]:
    """The session's PostgreSQL, with a migrated database to copy."""
    with EmbeddedPostgres(data_dir) as url, closing(Server(url)) as server:
        execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", f"CREATE DATABASE {TEMPLATE}")
        migrate(on_database(url, TEMPLATE))
        yield server


@pytest.fixture
def database_url(postgres: Server) -> Iterator[str]:
    """A fresh, migrated database."""
    with postgres.database(f"TEMPLATE {TEMPLATE}") as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: Server) -> Iterator[str]:
    """A fresh database without tables."""
    with postgres.database() as url:
        yield url


@pytest.fixture
async def store(database_url: str, anyio_backend: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(database_url) as store:
        yield store


@pytest.fixture
def add(store: PostgresStore) -> Add:
    """Adds an edit in a transaction of its own."""

    async def add(
        prompt: str = "Who is the prime minister of the UK?", target: str = "Boris Johnson", **new: Any
    ) -> Edit:
        descriptor = new.pop("descriptor", None) or Descriptor(prompt=prompt, target=target)
        embeddings = new.pop("embeddings", Embeddings(encoder="test", vectors=b"\0\0\x80?"))
        async with store.writing(actor="tester") as writing:
            return await writing.edits.add(NewEdit(descriptor=descriptor, **new), embeddings)

    return add
