"""Figures, as a person reads them and as a program does."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "docs" / "benchmarks"


def write(name: str, title: str, lines: list[str], figures: dict[str, Any]) -> None:
    """Print the lines, and write them to docs/benchmarks/<name>.md with the figures as JSON beside it."""
    stamp = f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores ({platform.machine()}, no GPU)."
    text = "\n".join([f"# {title}", "", f"Written by `python -m benchmarks.{name}`. {stamp}", "", *lines, ""])
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
