"""Dockerfile and docker-compose.yml, as far as they say what is started, with what, and in which order."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
CADDYFILE = ROOT / "deploy" / "Caddyfile"


@dataclass
class Stage:
    """One stage of the Dockerfile: what it is built on, and its instructions in order."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        return [text for name, text in self.steps if name == instruction][-1]

    def every(self, instruction: str) -> list[str]:
        return [text for name, text in self.steps if name == instruction]

    @property
    def environment(self) -> dict[str, str]:
        pairs = " ".join(self.every("ENV")).split()
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def health(self) -> list[str]:
        return json.loads(self.last("HEALTHCHECK").split("CMD", 1)[1])


def stages() -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage with their defaults, and the stages."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in filter(str.strip, joined.splitlines()):
        name, text = line.split(None, 1)
        if name == "FROM":
            base, _, alias = text.partition(" AS ")
            found.append(Stage(base, alias))
        elif not found:
            assert name == "ARG", line
            arguments.update([text.split("=", 1)])
        else:
            found[-1].steps.append((name, text))
    return arguments, found


def image() -> Stage:
    """What the image is at last."""
    return stages()[1][-1]


def composed(variables: dict[str, str], file: Path = COMPOSE) -> dict[str, Any]:
    """The file with these variables in their places.

    Raises:
        ValueError: One lacks that the file requires.
    """

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if variables.get(name):
            return variables[name]
        if kind == ":?":
            raise ValueError(f"{name}: {rest}")
        return rest

    document: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, file.read_text()))
    return document
