"""Servers that start quickly: each is forked from a process that has loaded the code already.

What runs is what `errata serve` runs, in a process of its own, which can be killed; only the seconds that importing
torch takes are spared.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx

from benchmarks.running import STOP_SECONDS
from service.store.embedded import Cluster

_SETTINGS = {"ERRATA_PORT": "0", "ERRATA_THREADS": "1", "ERRATA_JOBS": "false"}


@dataclass(frozen=True, slots=True)
class ForkedServer:
    """A server that answers.

    Attributes:
        url: Where.
        log: The file that takes its standard error.
    """

    url: str
    log: Path
    process: ForkServerProcess

    def client(self) -> httpx.Client:
        """A client of it; generous with time, since the machine may be busy."""
        return httpx.Client(base_url=self.url, timeout=300)

    def kill(self) -> None:
        """End it as a power cut would: kill -9."""
        self.process.kill()
        self.process.join(STOP_SECONDS)


@contextmanager
def forked_server(data_dir: Path, settings: Mapping[str, str]) -> Iterator[ForkedServer]:
    """Start a server on a free port and wait until it answers; stop it at the end, if it still runs.

    It does no jobs, and computes on one thread, unless the settings say otherwise.

    Raises:
        RuntimeError: It ended before it answered; the message holds what it said.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["service.app"])
    log = data_dir.with_name(f"{data_dir.name}.log")
    environment = {**_SETTINGS, "ERRATA_DATA_DIR": str(data_dir), **settings}
    heard, said = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(environment, log, said), daemon=True)
    process.start()
    said.close()
    try:
        try:
            greeting: str = heard.recv()
        except EOFError:
            process.join(STOP_SECONDS)
            raise RuntimeError(f"the server ended with {process.exitcode}: {log.read_text(encoding='utf-8')}") from None
        yield ForkedServer(greeting.split()[-1], log, process)
    finally:
        heard.close()
        if process.is_alive():
            process.terminate()
            process.join(STOP_SECONDS)
        process.close()


@contextmanager
def postgresql() -> Iterator[tuple[Cluster, str]]:
    """A PostgreSQL of its own, which can be stopped and started again, and its URL, which stays."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="errata-") as folder:  # short: a socket lies in it
        cluster = Cluster(Path(folder) / "postgres")
        try:
            yield cluster, cluster.start()
        finally:
            cluster.stop()


def _serve(environment: dict[str, str], log: Path, said: Connection[str, str]) -> None:
    with log.open("a", encoding="utf-8") as stderr:
        os.dup2(stderr.fileno(), 2)
    from service.app import serve
    from service.settings import load_settings

    serve(load_settings(environment), announce=said.send)
