"""A model behind an engine, measured as a caller meets it: by what it answers, and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock
from typing import NoReturn

from service.domain.generations import Sampling
from service.errors import QueueFull, ShuttingDown, UpstreamBusy, WeightsElsewhere
from service.runtime.engine import Engine

ASKED_AT_ONCE = 8
"""So that an evaluation leaves room for callers."""
TRIES = 10
"""For each question, before an evaluation fails for a server with too much to do."""


class CalledModel:
    """Implements `editors.evaluation.subject.Subject`, for a thread beside the engine's event loop.

    Made on that loop, and to be closed there: a thread that still waits for answers then goes on.

    Args:
        engine: Answers, as it does any caller.
        max_new_tokens: Most tokens of an answer.
    """

    def __init__(self, engine: Engine, *, max_new_tokens: int) -> None:
        self._engine = engine
        self._sampling = Sampling(max_new_tokens=max_new_tokens)
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()
        self._asking: Future[list[str]] | None = None
        self._closed = False

    def close(self) -> None:
        """Give up what is being asked."""
        with self._lock:
            self._closed = True
            if self._asking is not None:
                self._asking.cancel()

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """The answers, generated greedily, stripped, in the order of the prompts.

        Raises:
            ShuttingDown: It has been closed.
            And as `Engine.write`.
        """
        with self._lock:
            if self._closed:
                raise ShuttingDown("The evaluation has been given up.")
            self._asking = asyncio.run_coroutine_threadsafe(self._answers(prompts), self._loop)
        return self._asking.result()

    def score(self, _: Sequence[tuple[str, str]]) -> NoReturn:
        """Refuse.

        Raises:
            WeightsElsewhere: Always.
        """
        raise WeightsElsewhere("How likely a target is cannot be asked of a base that answers from another server.")

    distributions = score

    async def _answers(self, prompts: Sequence[str]) -> list[str]:
        turns = asyncio.Semaphore(ASKED_AT_ONCE)
        answers = [asyncio.ensure_future(self._answer(prompt, turns)) for prompt in prompts]
        try:
            return list(await asyncio.gather(*answers))
        finally:
            for one in answers:
                one.cancel()

    async def _answer(self, prompt: str, turns: asyncio.Semaphore) -> str:
        """An answer; whoever has too much to do is asked again when it says."""
        async with turns:
            for _ in range(TRIES - 1):
                try:
                    return (await self._engine.write(prompt, self._sampling)).text.strip()
                except (QueueFull, UpstreamBusy) as error:
                    await asyncio.sleep(error.retry_after)
            return (await self._engine.write(prompt, self._sampling)).text.strip()
