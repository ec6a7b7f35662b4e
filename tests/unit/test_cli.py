import socket
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from service.cli import app

ROOT = Path(__file__).parents[2]


def errata(*arguments, **environ):
    return CliRunner().invoke(app, arguments, env={"ERRATA_URL": None, **environ})


@pytest.fixture
def nobody():
    """An address where nothing listens."""
    with socket.socket() as held:  # bound and not listening: nobody else can come to listen there either
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def stranger():
    """A web server that is not Errata: /edits is a page, and all else is missing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/edits" else 404)
            self.end_headers()
            self.wfile.write(b"<html>" if self.path == "/edits" else b'["not found"]')

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_version_is_that_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert errata("--version").stdout == f"errata {version}\n"


@pytest.mark.parametrize("command", [(), ("edit",), ("keys",), ("checkpoint",)])
def test_without_a_command_the_help_is_shown(command):
    assert "Usage: " in errata(*command).output


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "Who leads the UK?"),
        ("match", "a"),
        ("edit", "add", "a", "b"),
        ("edit", "list"),
        ("edit", "show", "e1"),
        ("edit", "retract", "e1"),
        ("eval", "--edits", "active"),
        ("bench", "--requests", "1"),
        ("bake", "mend"),
        ("bake", "mend", "--dry-run"),
        ("checkpoint", "list"),
        ("checkpoint", "show", "v1"),
        ("checkpoint", "diff", "v0", "v1", "--prompt", "a"),
        ("checkpoint", "activate", "v1"),
        ("checkpoint", "rollback"),
        ("checkpoint", "export", "v1", "/tmp/nowhere.tar"),
    ],
)
def test_without_a_service_the_command_says_how_to_start_one(nobody, command):
    by_option = errata(*command, "--url", nobody)
    by_environment = errata(*command, ERRATA_URL=nobody)
    assert by_option.exit_code == by_environment.exit_code == 3
    assert by_option.stdout == ""
    assert by_option.stderr == by_environment.stderr
    assert by_option.stderr.startswith(f"error: no answer from {nobody}")
    assert "errata serve" in by_option.stderr


@pytest.mark.parametrize("command", [("edit", "list"), ("edit", "show", "e1")])
def test_a_server_that_is_not_errata_is_recognised(stranger, command):
    result = errata(*command, "--url", stranger)
    assert result.exit_code == 1
    assert "not as Errata does" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("generate",),
        ("generate", "a", "--temperature", "warm"),
        ("generate", "a", "--unknown"),
        ("match",),
        ("edit", "add", "Who leads the UK?"),
        ("edit", "add", "--kind", "statement", "a", "b"),
        ("edit", "add", "--kind", "fact", "a", "perhaps"),
        ("edit", "add", "--kind", "rumour", "a", "b"),
        ("edit", "retract", "e1", "--if-match", "new"),
        ("edit", "list", "--url", "nowhere"),
        ("edit", "list", "--url", "http://[::"),
        ("serve", "--port", "eighty"),
        ("keys", "create"),
        ("keys", "create", "a", "--scope", "everything"),
        ("keys", "create", "a", "--expires-at", "tomorrow"),
        ("keys", "create", "a", "--expires-at", "2001-01-01T00:00:00Z"),
        ("keys", "create", "a", "--expires-at", "2999-01-01T00:00:00"),
        ("keys", "revoke"),
        ("bench", "--clients", "2", "--rate", "2"),
        ("bench", "--rate", "0"),
        ("bench", "--prompts", "/nowhere/prompts.txt"),
        ("bake",),
        ("bake", "mend", "--config", "layer"),
        ("checkpoint", "diff", "v0", "v1"),
        ("checkpoint", "activate", "v1", "--percent", "0"),
        ("checkpoint", "export", "v1"),
    ],
)
def test_a_misused_command_ends_with_2_before_anything_is_sent(nobody, command):
    result = errata(*command, ERRATA_URL=nobody)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr


def test_a_service_that_cannot_start_says_why_without_a_traceback():
    result = errata("serve", "--base-model", "a", ERRATA_PORT="eighty")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0].startswith("error: ERRATA_PORT is 'eighty'")
    assert result.stderr.splitlines()[1].startswith("hint: ")


def test_the_commands_that_are_clients_do_without_the_model_and_the_database():
    heavy = "{'torch', 'transformers', 'sqlalchemy', 'fastapi', 'service.settings'}"
    code = f"import sys, service.cli; sys.exit(str({heavy} & set(sys.modules) or ''))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""
