"""Memory that runs out, told as an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from editors.errors import EditFailed

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
