"""How often a caller may ask: each key, or each address where there is no key, in windows that begin with a request.

Every answer says what is left (draft-ietf-httpapi-ratelimit-headers). Replicas count together in Redis where there is
one; while it is away each counts by itself, since a limit is never worth an outage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import ConfigurationError, StorageError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.guard import OPEN_PATHS
from service.api.problem_documents import ProblemResponse
from service.domain.keys import ANONYMOUS
from service.errors import RateLimited, StartupError

SECONDS_WITHOUT_REDIS = 5.0
"""How long Redis is left alone when it did not answer."""
_REDIS_SECONDS = 0.25
"""Longest wait for Redis, which is asked before every answer."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands with one limit: requests left, and seconds until its window ends."""

    limit: RateLimitItem
    left: int
    seconds: int
    over: bool


class RateLimiter:
    """Counts requests.

    Args:
        limits: At least one.
        redis_url: Where replicas count together; each by itself when empty.

    Raises:
        StartupError: There is a URL, and it is none, or the package redis is not installed.
    """

    def __init__(self, limits: Sequence[RateLimitItem], redis_url: str) -> None:
        self.limits = limits
        self._own = FixedWindowRateLimiter(MemoryStorage())
        self._redis = _redis(redis_url) if redis_url else None
        self._shared = FixedWindowRateLimiter(self._redis) if self._redis else None
        self._shared_from = 0.0

    async def count(self, who: str) -> list[Standing]:
        """Count a request of somebody's; where they then stand, with each limit."""
        if self._shared is not None and time.monotonic() >= self._shared_from:
            try:
                return await self._count(self._shared, who)
            except StorageError as error:
                self._shared_from = time.monotonic() + SECONDS_WITHOUT_REDIS
                _log.warning("Redis does not answer; this replica counts by itself", cause=repr(error.storage_error))
        return await self._count(self._own, who)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._redis is not None:
            client = self._redis.bridge.get_connection()  # type: ignore[attr-defined]  # as redispy's bridge has it
            await client.aclose()

    async def _count(self, counter: FixedWindowRateLimiter, who: str) -> list[Standing]:
        standings = []
        for limit in self.limits:
            within = await counter.hit(limit, who)
            stats = await counter.get_window_stats(limit, who)
            seconds = max(1, math.ceil(stats.reset_time - time.time()))
            standings.append(Standing(limit, max(0, stats.remaining), seconds, over=not within))
        return standings


class RateLimits:
    """Counts every request but those to open paths, and refuses those over a limit.

    Args:
        limiter: Counts.
    """

    def __init__(self, app: ASGIApp, limiter: RateLimiter) -> None:
        self._app = app
        self._limiter = limiter
        self._policy = ", ".join(
            f'"{limit.amount}-per-{limit.get_expiry()}";q={limit.amount};w={limit.get_expiry()}'
            for limit in limiter.limits
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        standings = await self._limiter.count(_who(scope))
        said = ", ".join(
            f'"{one.limit.amount}-per-{one.limit.get_expiry()}";r={one.left};t={one.seconds}' for one in standings
        )

        async def send_with_standing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = self._policy
                headers["RateLimit"] = said
            await send(message)

        over = [one for one in standings if one.over]
        if not over:
            await self._app(scope, receive, send_with_standing)
            return
        last = max(over, key=lambda one: one.seconds)
        error = RateLimited(f"More than {last.limit.amount} requests in {last.limit.get_expiry()} s.")
        refusal = ProblemResponse(error, scope["state"]["request_id"], {"Retry-After": str(last.seconds)})
        await refusal(scope, receive, send_with_standing)


def _who(scope: Scope) -> str:
    """The key, or the address where there is none; told apart, since a key may be named as an address."""
    caller = scope["state"].get("caller")
    if caller is not None and caller.actor != ANONYMOUS:
        return f"key:{caller.actor}"
    client = scope.get("client")
    return f"address:{client[0] if client else 'unknown'}"


def _redis(url: str) -> RedisStorage:
    try:
        return RedisStorage(
            f"async+{url}",
            implementation="redispy",
            wrap_exceptions=True,
            key_prefix="errata:limits",
            socket_timeout=_REDIS_SECONDS,
            socket_connect_timeout=_REDIS_SECONDS,
        )
    except (ConfigurationError, ValueError) as error:
        raise StartupError(
            "ERRATA_REDIS_URL cannot be used.",
            hint="It looks like redis://127.0.0.1:6379/0, and needs the package redis: pip install 'errata[redis]'.",
        ) from error
