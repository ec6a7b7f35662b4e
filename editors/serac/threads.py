"""Threads that compute side by side, each with operators of one thread.

Small operators gain nothing from several threads, which wait for each other after each; whole batches of them do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(work: Callable[[A], B], parts: Sequence[A]) -> Iterator[B]:
    """What the work makes of each part, in order: as many at once as torch may use threads; one part has them all."""
    count = torch.get_num_threads()
    return map(work, parts) if 1 in {count, len(parts)} else _threads(count).map(work, parts)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """So many threads, all of which have begun."""
    threads, begun = ThreadPoolExecutor(count, thread_name_prefix="side-by-side"), Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(1)  # of this thread, and what threads take that have not asked for their number
        torch.get_num_threads()  # which asks; at its first operator a thread would otherwise take what is set by then
        begun.wait()

    for _ in range(count):
        threads.submit(begin)
    begun.wait()
    torch.set_num_threads(count)
    return threads
