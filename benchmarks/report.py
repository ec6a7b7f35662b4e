"""Figures, as a person reads them and as a program does."""

from __future__ import annotations

import ast
import json
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "docs" / "benchmarks"
INDEX = RESULTS.with_suffix(".md")


def write(name: str, title: str, lines: list[str], figures: dict[str, Any]) -> None:
    """Print the lines, and write them to docs/benchmarks/<name>.md with the figures as JSON beside it."""
    stamp = f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores ({platform.machine()}, no GPU)."
    text = "\n".join([f"# {title}", "", f"Written by `python -m benchmarks.{name}`. {stamp}", "", *lines, ""])
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    INDEX.write_text(index(), encoding="utf-8")


def index() -> str:
    """The page that leads to all others, with what each program says of itself and when it was last run."""
    lines = [
        "# Benchmarks",
        "",
        "What we claim, each by a program that measures it and writes its page, with the figures as JSON beside it.",
        "`make benchmark` compares the editors, `make benchmarks` runs them all.",
        "",
        "| page | what is measured | when |",
        "| --- | --- | --- |",
    ]
    for page in sorted(RESULTS.glob("*.md")):
        text, program = page.read_text(encoding="utf-8"), Path(__file__).with_name(f"{page.stem}.py")
        said = (ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or "").partition(": `python")[0]
        title, day = text.partition("\n")[0].removeprefix("# "), re.search(r"Measured (\S+) on", text)
        lines.append(f"| [{title}](benchmarks/{page.name}) | {said} | {day[1] if day else ''} |")
    return "\n".join([*lines, ""])
