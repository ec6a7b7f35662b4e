"""What keeps a server from starting: one clear message, an exit code, and nothing half done."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.running import RunningServer

ERRATA = str(Path(sys.executable).with_name("errata"))


def serve(data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `errata serve`, which is expected to end by itself."""
    environment = {**os.environ, "ERRATA_DATA_DIR": str(data_dir), "ERRATA_PORT": "0"}
    environment |= {f"ERRATA_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run([ERRATA, "serve"], env=environment, capture_output=True, text=True, timeout=180)


def message(ended: subprocess.CompletedProcess[str]) -> str:
    """What it said; the first line names the error and there is no traceback."""
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def test_a_base_model_path_that_does_not_exist(tmp_path: Path):
    said = message(serve(tmp_path / "data", base_model="/no/such/model"))
    assert "error: There is no folder '/no/such/model'." in said
    assert "Hugging Face id, or a folder" in said


def test_a_folder_that_holds_no_model(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in message(serve(tmp_path / "data", base_model=str(tmp_path / "empty")))


def test_a_port_in_use(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = message(serve(tmp_path / "data", port=port))
    assert f"error: Port {port} on 127.0.0.1 is in use by another program." in said
    assert "--port" in said
    assert not (tmp_path / "data").exists()


def test_a_data_directory_that_another_server_holds(server: RunningServer):
    said = message(serve(server.log.with_suffix("")))
    assert f"process {server.process.pid}" in said
    assert "ERRATA_DATA_DIR" in said
    with server.client() as client:
        assert client.get("/readyz").status_code == 200


def test_a_data_directory_that_is_a_file(tmp_path: Path):
    (tmp_path / "data").write_text("mine")
    assert str(tmp_path / "data") in message(serve(tmp_path / "data"))
    assert (tmp_path / "data").read_text() == "mine"


def test_a_database_that_does_not_answer(tmp_path: Path):
    said = message(serve(tmp_path / "data", database_url="postgresql://nobody:secret@127.0.0.1:1/errata"))
    assert "127.0.0.1:1" in said
    assert "secret" not in said


def test_an_embedded_database_that_cannot_start(tmp_path: Path):
    cluster = tmp_path / "data" / "postgres"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("18\n")
    said = message(serve(tmp_path / "data"))
    assert str(cluster) in said
    assert sorted(path.name for path in cluster.iterdir()) in (["PG_VERSION"], ["PG_VERSION", "log"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "ERRATA_HOST is '0.0.0.0', which other machines can reach"),
        ({"basemodel": "x"}, "Did you mean ERRATA_BASE_MODEL?"),
        ({"port": "eighty"}, "ERRATA_PORT is 'eighty'"),
        ({"device": "abacus"}, "abacus"),
        ({"rate_limit": "ten"}, "ERRATA_RATE_LIMIT is 'ten'"),
    ],
)
def test_a_setting_that_makes_no_sense(tmp_path: Path, settings: dict[str, str], said: str):
    assert said in message(serve(tmp_path / "data", **settings))
