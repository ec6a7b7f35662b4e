"""Decisions in company: requests that arrive while the memory is busy are decided together, in one pass of the encoder.

A request alone waits for nobody: there is no delay to gather others, only what has gathered by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from service.errors import VersionUnavailable
from service.runtime.live_state import Decided, LiveState, Question
from service.runtime.owner import Owner

PROMPTS_AT_ONCE = 64
"""Once a batch holds as many, the next begins, so that no caller waits long for the prompts of others."""

_Decided = Decided | VersionUnavailable
_Waiting = tuple[Sequence[Question], asyncio.Future[list[_Decided]]]


class Decisions:
    """Asks what is in force, on its owner's thread. Belongs to one event loop.

    Args:
        state: Decides.
        owner: Its thread.
    """

    def __init__(self, state: LiveState, owner: Owner) -> None:
        self._state = state
        self._owner = owner
        self._waiting: deque[_Waiting] = deque()
        self._serving: asyncio.Task[None] | None = None

    async def decide(self, questions: Sequence[Question]) -> list[Decided | VersionUnavailable]:
        """What answers each question; one revision decides for all of a call.

        Raises:
            ShuttingDown: The owner has been closed.
        """
        answer: asyncio.Future[list[_Decided]] = asyncio.get_running_loop().create_future()
        self._waiting.append((questions, answer))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        while self._waiting:
            batch = self._next()
            questions = [question for own, _ in batch for question in own]
            try:
                decided = iter(await self._owner.run(self._state.decide, questions))
            except BaseException as error:  # whatever it is, those who wait must hear of it
                _fail(batch, error)
                if not isinstance(error, Exception):
                    raise
            else:
                for own, answer in batch:
                    mine = [next(decided) for _ in own]
                    if not answer.done():  # its caller may have gone
                        answer.set_result(mine)

    def _next(self) -> list[_Waiting]:
        """Everything that waits and whose caller is still there, up to about `PROMPTS_AT_ONCE` prompts."""
        batch: list[_Waiting] = []
        while self._waiting and sum(len(own) for own, _ in batch) < PROMPTS_AT_ONCE:
            waiting = self._waiting.popleft()
            if not waiting[1].done():
                batch.append(waiting)
        return batch


def _fail(batch: list[_Waiting], error: BaseException) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error) if isinstance(error, Exception) else answer.cancel()
