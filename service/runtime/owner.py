"""One owner for a mutable thing: its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from service.errors import ShuttingDown

P = ParamSpec("P")
T = TypeVar("T")


class Owner:
    """A thread to which work on one mutable thing is queued; nothing else may touch that thing.

    An exception of the work travels back to whoever awaits it.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Queue work and await its result.

        Raises:
            ShuttingDown: The owner has been closed.
        """
        try:
            future = self._thread.submit(work, *args, **kwargs)
        except RuntimeError as error:
            raise _closed() from error
        return await asyncio.wrap_future(future)

    def post(self, work: Callable[[], None], *, dropped: Callable[[ShuttingDown], None]) -> None:
        """Queue work that nobody awaits and that does not raise.

        Args:
            work: What to do.
            dropped: Called in its place where the owner is closed first.
        """

        def ended(future: Future[None]) -> None:
            if future.cancelled():
                dropped(_closed())

        try:
            future = self._thread.submit(work)
        except RuntimeError:
            dropped(_closed())
        else:
            future.add_done_callback(ended)

    def close(self) -> None:
        """Finish the work in progress, drop what is queued, end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _closed() -> ShuttingDown:
    return ShuttingDown("The service is stopping and takes no more work.")
