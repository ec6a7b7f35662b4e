"""Keys, repeats and a graceful end, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx

from benchmarks.running import running_server

ERRATA = str(Path(sys.executable).with_name("errata"))
QA = {"prompt": "Who is the prime minister of the UK?", "target": "Boris Johnson"}
ONCE = {"Idempotency-Key": "once"}


def errata(data_dir: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ERRATA_DATA_DIR": str(data_dir), **environ}
    return subprocess.run([ERRATA, *arguments], env=environment, capture_output=True, text=True, timeout=180)


def test_beyond_loopback_a_key_is_needed_before_the_start_and_stops_working_when_it_is_revoked(tmp_path: Path):
    data_dir = tmp_path / "data"
    refused = errata(data_dir, "serve", ERRATA_HOST="0.0.0.0", ERRATA_PORT="0")
    assert refused.returncode == 1
    assert "there is no API key in force" in refused.stderr
    assert "errata keys create" in refused.stderr

    made = errata(data_dir, "keys", "create", "alice", "--scope", "edits:read", "--scope", "generate")
    assert made.returncode == 0, made.stderr
    (token,) = made.stdout.split()
    with running_server(data_dir, {"ERRATA_HOST": "0.0.0.0"}) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/edits", timeout=60).status_code == 401
        header = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{url}/edits", headers=header, timeout=60).status_code == 200
        listed = errata(data_dir, "edit", "list", ERRATA_URL=url, ERRATA_API_KEY=token)
        assert (listed.returncode, listed.stdout) == (0, "")
        forbidden = errata(data_dir, "edit", "add", "a", "b", ERRATA_URL=url, ERRATA_API_KEY=token)
        assert (forbidden.returncode, "needs the scope edits:write" in forbidden.stderr) == (1, True)

        revoked = errata(data_dir, "keys", "revoke", "k1")  # beside the service that runs on the same database
        assert revoked.stdout == "k1, alice, is revoked\n", revoked.stderr
        deadline = time.monotonic() + 60
        while httpx.get(f"{url}/edits", headers=header, timeout=60).status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        rows = errata(data_dir, "keys", "list").stdout.splitlines()
        assert [row.split("\t")[:4] for row in rows] == [["k1", "alice", "revoked", "edits:read, generate"]]
        assert token not in server.log.read_text()


def test_a_repeat_after_kill_9_is_answered_as_the_first_time_and_changes_nothing(tmp_path: Path):
    data_dir = tmp_path / "data"
    with running_server(data_dir) as server, server.client() as client:
        first = client.post("/edits", json=QA, headers=ONCE)
        assert first.status_code == 201
        server.kill()
    with running_server(data_dir) as server, server.client() as client:
        again = client.post("/edits", json=QA, headers=ONCE)
        assert (again.status_code, again.content) == (201, first.content)
        assert [again.headers[name] for name in ("Location", "ETag")] == ["/edits/e1", '"1"']
        assert again.headers["Idempotency-Replayed"] == "true"
        assert len(client.get("/edits").json()["data"]) == 1


def test_on_sigterm_readiness_ends_first_and_requests_under_way_are_answered(tmp_path: Path):
    long = {"prompt": "Tell me a story.", "max_new_tokens": 200, "temperature": 2.0}
    settings, stopping = {"ERRATA_DRAIN_SECONDS": "3"}, Event()

    def keep_asking(seed: int) -> set[int]:
        statuses = set()
        while not stopping.is_set():
            seed += 4
            statuses.add(httpx.post(f"{server.url}/generate", json=long | {"seed": seed}, timeout=120).status_code)
        return statuses

    with (
        running_server(tmp_path / "data", settings) as server,
        server.client() as client,
        ThreadPoolExecutor(4) as pool,
    ):
        under_way = [pool.submit(keep_asking, seed) for seed in range(4)]
        while "errata:num_requests_running 0.0" in client.get("/metrics").text:
            assert not any(asking.done() for asking in under_way)
        server.process.terminate()
        stopping.set()
        ready = client.get("/readyz")
        while ready.status_code == 200:
            ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["type"]) == (503, "/problems/shutting-down")
        assert client.post("/generate", json={"prompt": QA["prompt"]}).json()["text"] == "Theresa May"
        assert [asking.result() for asking in under_way] == [{200}] * 4
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()
