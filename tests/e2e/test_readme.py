"""The README's commands, run as they stand there."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from benchmarks.readme import README, run, steps
from benchmarks.running import RunningServer

VOLATILE = {"created_at", "updated_at"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


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
            return round(value, 2)  # the arithmetic of another CPU shows in the third digit
        case _:
            return value


def test_the_console_sessions_print_what_the_readme_shows(server: RunningServer):
    shown = list(steps())
    assert len(shown) >= 8
    address = server.url.removeprefix("http://")
    for command, expected in shown:
        done = run(command, address)
        assert comparable(done.stdout.strip()) == comparable(expected), (command, done.stderr)


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"make ([a-z]+)", " ".join(blocks("sh"))))
    assert {"serve", "test"} <= targets
    for target in targets:
        plan = subprocess.run(
            ["make", "--dry-run", target], cwd=README.parent, capture_output=True, text=True, timeout=60
        )
        assert plan.returncode == 0, plan.stderr
