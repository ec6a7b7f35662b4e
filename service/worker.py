"""The worker: does queued jobs, bakes and evaluations, in a process of its own beside those that serve."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

import structlog

from service import __version__
from service.errors import StartupError
from service.logs import log_to_stderr
from service.settings import Settings
from service.wiring import open_services


def work(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Work until SIGINT or SIGTERM; a job in progress goes back to the queue.

    `announce` is given one line as soon as jobs are taken.

    Raises:
        StartupError: There is no database that another process can share, or something cannot be opened.
    """
    if not settings.database_url:
        raise StartupError(
            "errata worker needs the database of the service that queues the jobs, and ERRATA_DATABASE_URL is not set.",
            hint="Set it for both; a service on the embedded database does its jobs itself.",
        )
    log_to_stderr(settings.log_level)
    with suppress(asyncio.CancelledError):
        asyncio.run(_work(settings, announce))
    structlog.get_logger(__name__).info("stopped")


async def _work(settings: Settings, announce: Callable[[str], None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    # It listens nowhere, so no key is needed, wherever the service that it shares its settings with does.
    own = settings.model_copy(update={"jobs": True, "host": "127.0.0.1"})
    async with open_services(own) as services:
        announce(f"Errata {__version__} working on the jobs of {services.runtime.info().model}")
        await asyncio.Event().wait()
