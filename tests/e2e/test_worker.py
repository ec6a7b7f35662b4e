"""`errata worker`: does the jobs of a service on the same database, and stops when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.running import running_server
from tests.bakes import BODY, PROMPT, TARGET

ERRATA = str(Path(sys.executable).with_name("errata"))


@pytest.fixture
def shared(database_url, model_folder, tmp_path):
    """Settings of a service and its worker."""
    return {
        "ERRATA_DATABASE_URL": database_url,
        "ERRATA_ARTIFACTS_URL": str(tmp_path / "artifacts"),
        "ERRATA_BASE_MODEL": str(model_folder),
        "ERRATA_JOBS": "false",
    }


def test_a_worker_bakes_what_a_service_leaves_and_the_service_serves_it(shared, tmp_path):
    environment = {**os.environ, **shared, "ERRATA_DATA_DIR": str(tmp_path / "worker")}
    with running_server(tmp_path / "data", shared) as server, server.client() as client:
        client.post("/edits", json={"prompt": PROMPT, "target": TARGET}).raise_for_status()
        queued = client.post("/bakes", json=BODY).raise_for_status().headers["Location"]
        with subprocess.Popen([ERRATA, "worker"], env=environment, stdout=subprocess.PIPE, text=True) as worker:
            assert "working on the jobs of" in worker.stdout.readline()
            deadline = time.monotonic() + 120
            while (bake := client.get(queued).json())["state"] in {"queued", "running"}:
                assert time.monotonic() < deadline, bake
                time.sleep(0.1)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        assert bake["state"] == "done", bake
        client.post(f"/checkpoints/{bake['version']}/activate", json={}).raise_for_status()
        answer = client.post("/generate", json={"prompt": PROMPT, "max_new_tokens": 12}).json()
        assert (answer["text"].startswith(TARGET), answer["source"], answer["version"]) == (True, "base", "v1")


def test_a_worker_without_a_database_of_its_own_says_so():
    ended = subprocess.run([ERRATA, "worker"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "ERRATA_DATABASE_URL is not set" in ended.stderr
    assert "Traceback" not in ended.stderr
