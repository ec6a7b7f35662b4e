"""Who is trained on and who is kept: a stable hash decides, the same on every machine and in every run."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

Split = Literal["train", "validation"]

_SHARE = 5
"""One in five is kept for validation."""


def split(subject: str) -> Split:
    """The split of a subject, whatever its case and article."""
    bare = subject.casefold().removeprefix("the ").strip()
    return "validation" if held_out(f"subject:{bare}") else "train"


def held_out(key: str) -> bool:
    """Whether a thing of that name, such as a frame or one of its phrasings, is kept for validation."""
    return blake2b(key.encode(), digest_size=8).digest()[0] % _SHARE == 0
