"""The README's commands, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.running import RunningServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VOLATILE = {"created_at", "updated_at"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def session() -> list[tuple[str, str]]:
    """The commands of the console blocks, each with the output that the README shows."""
    steps = []
    for block in blocks("console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, output = re.fullmatch(r"((?:.*\\\n)*.*)\n((?:.*\n)*)", step).groups()
            steps.append((command, output.strip()))
    return steps


def comparable(output: str) -> Any:
    """Output without what differs from run to run: times, and the last digits of a probability."""
    try:
        return settled(json.loads(output))
    except ValueError:
        return output


def settled(value: Any) -> Any:
    match value:
        case dict():
            return {name: settled(member) for name, member in value.items() if name not in VOLATILE}
        case list():
            return [settled(member) for member in value]
        case float():
            return round(value, 3)
        case _:
            return value


def test_the_console_sessions_print_what_the_readme_shows(server: RunningServer):
    steps = session()
    assert len(steps) >= 8
    address = server.url.removeprefix("http://")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command, expected in steps:
        here = command.replace("localhost:8000", address)
        run = subprocess.run(
            ["bash", "-c", here], capture_output=True, text=True, timeout=120, env=os.environ | {"PATH": path}
        )
        shown = run.stdout.strip().replace(address, "localhost:8000")
        assert comparable(shown) == comparable(expected), (command, run.stderr)


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"make ([a-z]+)", " ".join(blocks("sh"))))
    assert {"serve", "test"} <= targets
    for target in targets:
        plan = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert plan.returncode == 0, plan.stderr
