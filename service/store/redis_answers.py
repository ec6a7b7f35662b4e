"""Answers in Redis, where replicas find each other's. It is never the truth: without it, answers are only slower.

It is given little time, and left alone for a while when it does not answer; then one request finds out for all. An
entry names its key, so that one that lies in the wrong place, or came to the wrong question, is not believed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.domain.answers import KeptAnswer, Lookups
from service.domain.generations import FinishReason, Usage
from service.errors import StartupError

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")
REDIS_SECONDS = 0.25
"""Longest wait for Redis, which is asked before an answer is written."""
SECONDS_WITHOUT_REDIS = 5.0
"""How long it is left alone when it did not answer."""

_log = structlog.get_logger(__name__)


class _Entry(BaseModel):
    """What lies in Redis under an answer's key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    key: str
    text: str
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    finish_reason: FinishReason


class _Unanswered(Exception):
    """Redis did not answer, refused, or was not asked."""


class RedisAnswers:
    """Keeps answers in Redis. Belongs to one event loop; connects when it is first asked.

    Args:
        url: `redis://`, `rediss://` or `redis+unix://`.
        made_by: What writes the answers; nobody finds those of another maker.
        seconds: How long an answer is kept.

    Raises:
        StartupError: It is no such URL, or the package redis is not installed.
    """

    def __init__(self, url: str, *, made_by: str, seconds: float) -> None:
        self._redis, self._faults, self._refusal = _client(url)
        self._made_by = made_by
        self._milliseconds = max(1, round(seconds * 1000))
        self._away = False
        self._ask_from = 0.0
        self._say_from = 0.0
        self.asked = Lookups(tier="redis")

    async def get(self, key: str) -> KeptAnswer | None:
        """The answer of that key; None when there is none, or Redis cannot be asked, or what it holds is none."""
        try:
            document = await self._ask(lambda: self._redis.get(self._name(key)))
            if document is None:
                self.asked.misses += 1
                return None
            answer = _read(document, key)
        except _Unanswered:
            self.asked.errors += 1
            return None
        except ValueError as error:
            self.asked.errors += 1
            self._complain("an answer in Redis cannot be read, and is written again", error)
            return None
        self.asked.hits += 1
        return answer

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep an answer, if Redis takes it."""
        document = _written(key, answer)
        try:
            await self._ask(lambda: self._redis.set(self._name(key), document, px=self._milliseconds))
        except _Unanswered:
            return

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _name(self, key: str) -> str:
        return f"errata:answers:{self._made_by}:{key}"

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._away:
            if time.monotonic() < self._ask_from:
                raise _Unanswered
            self._ask_from = time.monotonic() + SECONDS_WITHOUT_REDIS  # the others go on without, meanwhile
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                found = await work()
        except self._refusal as error:  # such as a full memory: it is there, and answers at once
            self._away = False
            self._complain("Redis refuses", error)
            raise _Unanswered from error
        except self._faults as error:
            self._away, self._ask_from = True, time.monotonic() + SECONDS_WITHOUT_REDIS
            self._complain("Redis does not answer; this replica keeps its answers by itself", error)
            raise _Unanswered from error
        if self._away:
            self._away = False
            _log.info("Redis answers again")
        return found

    def _complain(self, event: str, error: Exception) -> None:
        """Say so, but not at every request; a bad entry's content is nobody's to read in a log."""
        if time.monotonic() >= self._say_from:
            self._say_from = time.monotonic() + SECONDS_WITHOUT_REDIS
            _log.warning(event, cause=type(error).__name__)


def _read(document: bytes | str, key: str) -> KeptAnswer:
    """The answer in an entry.

    Raises:
        ValueError: It is none, or another key's.
    """
    try:
        entry = _Entry.model_validate_json(document)
    except ValidationError as error:
        raise ValueError("not an entry") from error
    if entry.key != key:
        raise ValueError("the entry of another key")
    usage = Usage(prompt_tokens=entry.prompt_tokens, completion_tokens=entry.completion_tokens)
    return KeptAnswer(text=entry.text, usage=usage, finish_reason=entry.finish_reason)


def _written(key: str, answer: KeptAnswer) -> str:
    entry: dict[str, Any] = {
        "key": key,
        "text": answer.text,
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "finish_reason": answer.finish_reason.value,
    }
    return json.dumps(entry)


def _client(url: str) -> tuple[Redis, tuple[type[Exception], ...], type[Exception]]:
    """A client that tries once; the errors by which a Redis is away, and that by which it refuses."""
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError, ResponseError

        client: Redis = Redis.from_url(
            url.replace("redis+unix://", "unix://", 1),
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except (ImportError, ValueError) as error:
        raise StartupError(
            "ERRATA_REDIS_URL cannot be used.",
            hint="It looks like redis://127.0.0.1:6379/0, and needs the package redis: pip install 'errata[redis]'.",
        ) from error
    return client, (RedisError, OSError, TimeoutError), ResponseError
