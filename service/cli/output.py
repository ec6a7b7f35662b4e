"""What the command prints: tables for people, tab-separated lines for pipes, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print the service's JSON.")]


def show_json(document: Any) -> None:
    """Print a document for programs."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a table on a terminal, and as tab-separated lines without a heading elsewhere."""
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(_one_line(value) for value in row))
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(_one_line(value)) for value in row))
    console.print(table)


def show_fields(fields: dict[str, Any]) -> None:
    """Print named values, one a line, without those that are empty."""
    said = {name: shown for name, value in fields.items() if (shown := _one_line(value))}
    width = max((len(name) for name in said), default=0)
    for name, shown in said.items():
        typer.echo(f"{name:<{width}}  {shown}")


def note(text: str) -> None:
    """Print a remark beside the result, where it does not get into pipes."""
    Console(stderr=True).print(Text(text, style="dim"), soft_wrap=True)


def failure(detail: str, hint: str, code: int) -> typer.Exit:
    """Say what went wrong and what to do about it; raise what this returns to end the command."""
    typer.echo(f"error: {detail}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    return typer.Exit(code)


def save(path: Path, text: str, code: int) -> None:
    """Write a file.

    Raises:
        typer.Exit: It cannot be written, and why has been printed; with the code given.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise failure(f"{path} cannot be written: {error.strerror}.", "Name a file that you may write.", code) from None


def _one_line(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_one_line(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(str(value).split())
