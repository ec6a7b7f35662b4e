"""The answer cache: in this process, and behind it in Redis where there is one, so that replicas share answers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from cachetools import TTLCache

from service.domain.answers import AnswerCache, KeptAnswer, Lookups, NoAnswers
from service.settings import Settings
from service.store.redis_answers import RedisAnswers

OVERHEAD_BYTES = 1024
"""What an answer takes beside its text: its key, its figures, and its place."""


@asynccontextmanager
async def open_answers(settings: Settings, *, made_by: str) -> AsyncIterator[AnswerCache]:
    """The cache that the settings ask for.

    Args:
        settings: Its size, its time, and Redis.
        made_by: What writes the answers; replicas share those of equal makers.

    Raises:
        StartupError: There is a URL for Redis and it is none, or the package redis is not installed.
    """
    if not settings.answer_cache_bytes:
        yield NoAnswers()
        return
    local = LocalAnswers(most_bytes=settings.answer_cache_bytes, seconds=settings.answer_cache_seconds)
    async with AsyncExitStack() as stack:
        tiers: list[LocalAnswers | RedisAnswers] = [local]
        if settings.redis_url:
            shared = RedisAnswers(settings.redis_url, made_by=made_by, seconds=settings.answer_cache_seconds)
            tiers.append(await stack.enter_async_context(aclosing(shared)))
        yield TieredAnswers(tiers)


class LocalAnswers:
    """Keeps answers in this process; those asked for least lately go first. Belongs to one event loop.

    Args:
        most_bytes: Of memory, about.
        seconds: How long an answer is kept.
    """

    def __init__(self, *, most_bytes: int, seconds: float) -> None:
        self._kept: TTLCache[str, KeptAnswer] = TTLCache(most_bytes, seconds, getsizeof=_size)
        self.asked = Lookups(tier="memory")

    async def get(self, key: str) -> KeptAnswer | None:
        """The answer of that key, or None."""
        found = self._kept.get(key)
        if found is None:
            self.asked.misses += 1
        else:
            self.asked.hits += 1
        return found

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep an answer, unless it alone is over the limit."""
        if _size(answer) <= self._kept.maxsize:
            self._kept[key] = answer


class TieredAnswers:
    """Implements `service.domain.answers.AnswerCache`: what is found in a tier is kept in those before it.

    Args:
        tiers: The nearest first.
    """

    def __init__(self, tiers: Sequence[LocalAnswers | RedisAnswers]) -> None:
        self._tiers = tiers

    async def get(self, key: str) -> KeptAnswer | None:
        """The answer of that key, or None."""
        for place, tier in enumerate(self._tiers):
            found = await tier.get(key)
            if found is not None:
                for nearer in self._tiers[:place]:
                    await nearer.put(key, found)
                return found
        return None

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep an answer in every tier."""
        for tier in self._tiers:
            await tier.put(key, answer)

    def lookups(self) -> Sequence[Lookups]:
        """What came of asking, in each tier."""
        return [tier.asked for tier in self._tiers]


def _size(answer: KeptAnswer) -> int:
    return OVERHEAD_BYTES + sys.getsizeof(answer.text)
