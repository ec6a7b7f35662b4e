"""The command `errata serve` as a process of its own, with the bundled model."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from benchmarks.running import RunningServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server for one module, on an empty data directory."""
    with running_server(tmp_path_factory.mktemp("errata") / "data") as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
