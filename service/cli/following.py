"""Following long work: a progress bar on a terminal, and nothing in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


def counted() -> Progress:
    """A bar of things done, of so many."""
    return _bar(MofNCompleteColumn())


def staged() -> Progress:
    """A bar of percent, stage by stage."""
    return _bar(TaskProgressColumn())


def _bar(amount: MofNCompleteColumn | TaskProgressColumn) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
