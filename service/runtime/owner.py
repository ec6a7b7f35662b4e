"""One owner for a mutable thing: its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from service.errors import ShuttingDown

P = ParamSpec("P")
T = TypeVar("T")


class Owner:
    """A thread to which work on one mutable thing is queued; nothing else may touch that thing.

    An exception of the work travels back to whoever awaits it.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._futures: set[Future[Any]] = set()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Queue work and await its result.

        Raises:
            ShuttingDown: The owner has been closed.
        """
        try:
            future = self._thread.submit(work, *args, **kwargs)
        except RuntimeError as error:
            raise ShuttingDown("The service is stopping and takes no more work.") from error
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return await asyncio.wrap_future(future)

    @property
    def pending(self) -> int:
        """Pieces of work that are queued or being done."""
        return len(self._futures)

    def close(self) -> None:
        """Finish the work in progress, drop what is queued, end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
