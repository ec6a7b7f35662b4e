"""Matches: which edit would answer a prompt, and why."""

from __future__ import annotations

from service.actions.services import Services
from service.domain.matches import Match


async def match(services: Services, prompts: tuple[str, ...]) -> tuple[Match, ...]:
    """The decision for each prompt, in order."""
    return await services.runtime.match(prompts)
