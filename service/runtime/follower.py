"""The follower: installs changes that other processes committed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from service.domain.ports import Runtime
from service.errors import ErrataError

SECONDS_BETWEEN_LOOKS = 1.0

_log = structlog.get_logger(__name__)


async def follow(runtime: Runtime, heard: asyncio.Event) -> None:
    """Look for new changes whenever `heard` is set, and once a second in any case, until cancelled.

    A database that is away is looked for again.
    """
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(heard.wait(), SECONDS_BETWEEN_LOOKS)
        heard.clear()
        try:
            await runtime.catch_up()
        except ErrataError as error:
            _log.warning("cannot follow the change log", detail=error.detail)
        except Exception:
            _log.exception("installing changes failed")
