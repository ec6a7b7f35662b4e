"""Expiries: an edit answers nothing from its end on; soon after, the log says so."""

from __future__ import annotations

import asyncio

import structlog

from service.actions.services import Services
from service.errors import ErrataError

SECONDS_BETWEEN_LOOKS = 1.0
SERVICE = "errata"
"""Who signs what nobody asked for."""

_log = structlog.get_logger(__name__)


async def record(services: Services) -> None:
    """Record the edits whose time has come, also while no service ran, and forget them here."""
    async with services.store.reading() as reading:
        overdue = await reading.edits.overdue()
    if overdue:
        async with services.store.writing(actor=SERVICE):
            pass  # every writer begins by recording them
        await services.runtime.catch_up()


async def watch(services: Services) -> None:
    """Record them once a second, until cancelled; a database that is away is asked again."""
    while True:
        try:
            await record(services)
        except ErrataError as error:
            _log.warning("expiries could not be recorded", detail=error.detail)
        except Exception:
            _log.exception("recording expiries failed")
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
