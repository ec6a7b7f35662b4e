"""Memory that runs out, told as an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from editors.errors import EditFailed

Prepare = TypeVar("Prepare", bound=Callable[..., Any])

_ON_CPU = "can't allocate memory"
"""Of the words with which torch says it there, in a plain RuntimeError."""


@contextmanager
def enough_memory(doing: str, *, hint: str) -> Iterator[None]:
    """Do what may need more memory than there is.

    Args:
        doing: What is done, to follow "while".
        hint: What to do where memory runs out.

    Raises:
        EditFailed: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and _ON_CPU not in str(error):
            raise
        raise EditFailed(f"Memory ran out while {doing}.", hint=hint) from error


def within_memory(prepare: Prepare) -> Prepare:
    """Decorate a method's `prepare`, which may need more memory than there is, so that it then raises `EditFailed`."""
    hint = "Make fewer edits at once, or give the process more memory."
    return enough_memory("the edit was computed", hint=hint)(prepare)
