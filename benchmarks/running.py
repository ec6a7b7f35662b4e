"""A real server in a process of its own, for benchmarks and end-to-end tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

STOP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers.

    Attributes:
        url: Where.
        log: The file that takes its standard error.
    """

    url: str
    log: Path
    process: subprocess.Popen[str]

    def client(self) -> httpx.Client:
        """A client of it; generous with time, since the machine may be busy."""
        return httpx.Client(base_url=self.url, timeout=300)

    def kill(self) -> None:
        """End it as a power cut would: kill -9."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)


@contextmanager
def running_server(data_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[RunningServer]:
    """Start `errata serve` on a free port and wait until it answers; stop it at the end, if it still runs.

    Raises:
        RuntimeError: It ended before it answered; the message holds what it said.
    """
    log = data_dir.with_name(f"{data_dir.name}.log")
    environment = {**os.environ, "ERRATA_DATA_DIR": str(data_dir), "ERRATA_PORT": "0", **(settings or {})}
    command = [str(Path(sys.executable).with_name("errata")), "serve"]
    with log.open("a", encoding="utf-8") as stderr:
        process = subprocess.Popen(  # noqa: S603 - our own command, from this environment
            command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert process.stdout is not None
    try:
        greeting = process.stdout.readline()
        if not greeting:
            raise RuntimeError(
                f"errata serve ended with {process.wait(STOP_SECONDS)}: {log.read_text(encoding='utf-8')}"
            )
        yield RunningServer(greeting.split()[-1], log, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)
        process.stdout.close()
