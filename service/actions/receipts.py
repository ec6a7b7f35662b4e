"""Receipts: answer a repeated request as it was answered, and forget those that are too old to be repeated."""

from __future__ import annotations

import asyncio

import structlog

from service.actions.services import Services
from service.domain.ports import Store
from service.domain.receipts import Answer, Claim
from service.errors import ErrataError

SECONDS_BETWEEN_CLEANINGS = 3600.0

_log = structlog.get_logger(__name__)


async def answered(services: Services, claim: Claim) -> Answer | None:
    """What was answered to this request before, if it was.

    Raises:
        IdempotencyKeyReused: Its key came with another body.
    """
    async with services.store.reading() as reading:
        return await reading.receipts.answer(claim)


async def installed(services: Services) -> None:
    """Bring this replica up to date, so that a repeat promises what the first answer did."""
    try:
        await services.runtime.catch_up()
    except Exception:  # what was answered is true nevertheless, and the follower installs it later
        _log.exception("repeated answer not yet installed")


async def forget_regularly(store: Store) -> None:
    """Forget old receipts now and then, until cancelled."""
    while True:
        try:
            async with store.recording() as recording:
                await recording.receipts.forget_old()
        except ErrataError as error:
            _log.warning("old receipts were not forgotten", detail=error.detail)
        await asyncio.sleep(SECONDS_BETWEEN_CLEANINGS)
