"""How the process's memory is given back to the system.

glibc's malloc learns from what is freed: once a large tensor has been, all up to its size are cut from heaps, of which
each thread has its own, and whatever small is left above one keeps it from being given back. Under load that grew by
some hundred megabytes that nobody used, the more the longer. So large blocks are always mapped by themselves, and
there is one heap.
"""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Parameters of mallopt(3)."""
LARGE_BYTES = 1 << 20


def give_back_large_blocks() -> None:
    """Have freed blocks of `LARGE_BYTES` given back at once, where the C library is glibc; before threads are made."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_ARENA_MAX, 1)
