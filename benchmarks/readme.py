"""The README's console sessions: read for the tests, and brought up to date by `python -m benchmarks.readme`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.running import running_server

README = Path(__file__).parent.parent / "README.md"
_CONSOLE = re.compile(r"^```console\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
_STEP = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", flags=re.MULTILINE)
_ADDRESS = "localhost:8000"
_SECONDS = 120


def main() -> None:
    """Run every command of the sessions against a fresh service, and put what it prints below it."""
    text = README.read_text(encoding="utf-8")
    with TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        address = server.url.removeprefix("http://")

        def answered(step: re.Match[str]) -> str:
            output, blank = run(step[1], address).stdout.strip(), step[2].endswith("\n\n")
            return "\n".join(["$ " + step[1], *([output] if output else []), *([""] if blank else []), ""])

        filled = _CONSOLE.sub(lambda block: f"```console\n{_STEP.sub(answered, block[1])}```", text)
    README.write_text(filled, encoding="utf-8")


def steps() -> Iterator[tuple[str, str]]:
    """The commands of the sessions in order, each with the output that the README shows."""
    for block in _CONSOLE.findall(README.read_text(encoding="utf-8")):
        for command, output in _STEP.findall(block):
            yield command, output.strip()


def run(command: str, address: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the README against the service at an address, which its output names as the README's."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603 - the README is ours
        ["/bin/bash", "-c", command.replace(_ADDRESS, address)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env=os.environ | {"PATH": path},
        check=False,
    )
    done.stdout = done.stdout.replace(address, _ADDRESS)
    return done


if __name__ == "__main__":
    main()
