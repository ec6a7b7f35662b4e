"""Decisions in company: requests that arrive while the memory is busy are decided together, in one pass of the encoder.

A request alone waits for nobody: there is no delay to gather others, only what has gathered by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from service.runtime.live_memory import LiveMemory, Verdict
from service.runtime.owner import Owner

PROMPTS_AT_ONCE = 64
"""Once a batch holds as many, the next begins, so that no caller waits long for the prompts of others."""

_Waiting = tuple[Sequence[str], asyncio.Future[list[Verdict]]]


class Decisions:
    """Asks the live memory on its owner's thread. Belongs to one event loop.

    Args:
        memory: Decides.
        owner: Its thread.
    """

    def __init__(self, memory: LiveMemory, owner: Owner) -> None:
        self._memory = memory
        self._owner = owner
        self._waiting: deque[_Waiting] = deque()
        self._serving: asyncio.Task[None] | None = None

    async def decide(self, prompts: Sequence[str]) -> list[Verdict]:
        """Which edit answers each prompt; one revision decides for all of a call.

        Raises:
            ShuttingDown: The owner has been closed.
        """
        answer: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._waiting.append((prompts, answer))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        while self._waiting:
            batch = self._next()
            prompts = [prompt for own, _ in batch for prompt in own]
            try:
                verdicts = iter(await self._owner.run(self._memory.decide, prompts))
            except BaseException as error:  # whatever it is, those who wait must hear of it
                _fail(batch, error)
                if not isinstance(error, Exception):
                    raise
            else:
                for own, answer in batch:
                    mine = [next(verdicts) for _ in own]
                    if not answer.done():  # its caller may have gone
                        answer.set_result(mine)

    def _next(self) -> list[_Waiting]:
        """Everything that waits and whose caller is still there, up to about `PROMPTS_AT_ONCE` prompts."""
        batch: list[_Waiting] = []
        while self._waiting and sum(len(prompts) for prompts, _ in batch) < PROMPTS_AT_ONCE:
            waiting = self._waiting.popleft()
            if not waiting[1].done():
                batch.append(waiting)
        return batch


def _fail(batch: list[_Waiting], error: BaseException) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error) if isinstance(error, Exception) else answer.cancel()
