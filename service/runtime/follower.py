"""The follower: installs changes that other processes committed."""

from __future__ import annotations

import asyncio

import structlog

from service.domain.ports import Runtime
from service.errors import ErrataError

SECONDS_BETWEEN_LOOKS = 1.0

_log = structlog.get_logger(__name__)


async def follow(runtime: Runtime) -> None:
    """Look for new changes once a second, until cancelled; a database that is away is looked for again."""
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        try:
            await runtime.catch_up()
        except ErrataError as error:
            _log.warning("cannot follow the change log", detail=error.detail)
        except Exception:
            _log.exception("installing changes failed")
