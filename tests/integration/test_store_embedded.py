"""The embedded PostgreSQL: one owner at a time, a clear word when it cannot start, nothing lost when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import StartupError
from service.store.embedded import Cluster, EmbeddedPostgres
from tests.databases import execute

OWNER = """
import sys, time
from pathlib import Path
from service.store.embedded import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(600)
"""
REPOSITORY = Path(__file__).parents[2]


def test_a_second_server_on_a_data_directory_is_told_who_holds_it(postgres, data_dir):
    with pytest.raises(StartupError, match=f"process {os.getpid()}") as refused, EmbeddedPostgres(data_dir):
        pass
    assert "ERRATA_DATA_DIR" in refused.value.hint
    assert "ERRATA_DATABASE_URL" in refused.value.hint
    assert execute(postgres.url, "SELECT 1") == [(1,)]


def test_a_data_directory_is_made_with_its_parents_and_keeps_what_was_committed(tmp_path):
    data_dir = tmp_path / "not" / "there" / "yet"
    with EmbeddedPostgres(data_dir) as url:
        execute(url, "CREATE TABLE kept AS SELECT 'a word' AS said")
    assert not Cluster(data_dir / "postgres").running()
    with EmbeddedPostgres(data_dir) as url:
        assert execute(url, "SELECT said FROM kept") == [("a word",)]


def test_a_path_that_is_long_and_odd_will_do(tmp_path):
    data_dir = tmp_path / "with spaces, 'quotes' and ümlauts" / ("long" * 30)
    with EmbeddedPostgres(data_dir) as url:
        assert execute(url, "SELECT 1") == [(1,)]
        socket_folder = Path(execute(url, "SHOW unix_socket_directories")[0][0])
        assert socket_folder.is_dir()
    assert not socket_folder.exists()


def test_a_relative_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with EmbeddedPostgres(Path("data")) as url:
        monkeypatch.chdir("/")
        assert execute(url, "SHOW data_directory") == [(str(tmp_path / "data" / "postgres"),)]


def test_only_the_owner_can_open_the_socket_and_no_port_is_opened(postgres):
    assert execute(postgres.url, "SHOW listen_addresses") == [("",)]
    assert execute(postgres.url, "SHOW unix_socket_permissions") == [("0700",)]


def test_a_data_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StartupError, match="directory") as refused, EmbeddedPostgres(path):
            pass
        assert "ERRATA_DATA_DIR" in refused.value.hint
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_cluster_of_another_postgresql_is_refused_and_left_alone(tmp_path):
    cluster = tmp_path / "postgres"
    cluster.mkdir()
    (cluster / "PG_VERSION").write_text("16\n")
    with pytest.raises(StartupError, match=r"PostgreSQL 16.* 18"), EmbeddedPostgres(tmp_path):
        pass
    assert [path.name for path in cluster.iterdir()] == ["PG_VERSION"]


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    cluster = tmp_path / "postgres"
    cluster.mkdir()
    (cluster / "thesis.tex").write_text("years of work")
    with pytest.raises(StartupError, match="not PostgreSQL's"), EmbeddedPostgres(tmp_path):
        pass
    assert [path.name for path in cluster.iterdir()] == ["thesis.tex"]


def test_a_cluster_that_was_never_finished_is_made_again(tmp_path):
    (tmp_path / "postgres.unfinished").mkdir()
    (tmp_path / "postgres.unfinished" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path) as url:
        assert execute(url, "SELECT 1") == [(1,)]
    assert not (tmp_path / "postgres.unfinished").exists()


def test_a_corrupt_cluster_is_reported_with_its_reason_and_its_log_and_the_lock_is_free_again(tmp_path):
    with EmbeddedPostgres(tmp_path):
        pass
    control = tmp_path / "postgres" / "global" / "pg_control"
    control.write_bytes(control.read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(StartupError, match="pg_control") as refused, EmbeddedPostgres(tmp_path):
            pass
        assert str(tmp_path / "postgres" / "log") in refused.value.hint


def test_the_server_that_a_killed_owner_left_behind_is_taken_over(tmp_path):
    url = _kill_the_owner(tmp_path)
    assert Cluster(tmp_path / "postgres").running()
    with EmbeddedPostgres(tmp_path) as again:
        assert again == url
        assert execute(again, "SELECT * FROM kept") == [(1,)]
    assert not Cluster(tmp_path / "postgres").running()


def test_what_was_committed_survives_the_killing_of_owner_and_server(tmp_path):
    _kill_the_owner(tmp_path)
    postmaster = int((tmp_path / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    with EmbeddedPostgres(tmp_path) as url:
        assert execute(url, "SELECT * FROM kept") == [(1,)]


def _kill_the_owner(data_dir: Path) -> str:
    """Start a process that owns the data directory, commit something, and kill -9 the process."""
    command = [sys.executable, "-c", OWNER, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as owner:
        try:
            url = owner.stdout.readline().strip()
            execute(url, "CREATE TABLE kept AS SELECT 1")
            with pytest.raises(StartupError, match=f"process {owner.pid}"), EmbeddedPostgres(data_dir):
                pass
        finally:
            owner.kill()
    return url
