"""Asks a service many questions, by clients in a closed loop or by arrivals in an open one; notes what came of each.

In an open loop a question is late from the moment at which it should have been sent: a service that stands still is
charged for all who would have asked meanwhile (Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

GENERATE = "/generate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How questions come; what both ends leave open goes on until it is cancelled.

    Attributes:
        clients: So many, each of whom asks again as soon as it is answered; not with a rate.
        rate: Questions a second on average, which come when they come (a Poisson process), however many wait.
        requests: The most that are sent.
        seconds: After so many, none is sent any more; those under way are waited for.
        seed: Draws the moments, and the order of the questions.
    """

    clients: int = 1
    rate: float | None = None
    requests: int | None = None
    seconds: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one question; times are seconds since the load began.

    Attributes:
        due: When it was to be sent; `sent` is when it was.
        first: When its first piece came; None where it was not streamed.
        status: 200 for an answer; else what was wrong, such as `429 queue-full`.
        answer: The whole of it, as `POST /generate` has it; None where something was wrong.
    """

    due: float
    sent: float
    first: float | None
    done: float
    status: str
    answer: dict[str, Any] | None

    @property
    def latency(self) -> float:
        """Seconds from when it was to be sent to its end."""
        return self.done - self.due


class Broken(Exception):
    """An answer that cannot be used; the text becomes its status."""


class Load:
    """One run of a plan.

    Args:
        client: Of the service; it must open as many connections as are asked for.
        questions: Bodies of `POST /generate`, asked in a random order, again and again.

    Attributes:
        outcomes: Of what has ended so far.
    """

    def __init__(self, client: httpx.AsyncClient, plan: Plan, questions: Sequence[dict[str, Any]]) -> None:
        self.outcomes: list[Outcome] = []
        self._client = client
        self._plan = plan
        self._random = Random(plan.seed)
        order = self._random.sample(questions, len(questions))
        self._questions: Iterator[dict[str, Any]] = itertools.islice(itertools.cycle(order), plan.requests)
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._start

    async def run(self) -> None:
        """Ask everything, and wait for every answer."""
        self._start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            if self._plan.rate is not None:
                await self._arrive(tasks, self._plan.rate)
            else:
                for _ in range(self._plan.clients):
                    tasks.create_task(self._ask_again())

    async def _ask_again(self) -> None:
        limit = self._plan.seconds
        while limit is None or self.seconds < limit:
            question = next(self._questions, None)
            if question is None:
                return
            await self._ask(question, self.seconds)

    async def _arrive(self, tasks: asyncio.TaskGroup, rate: float) -> None:
        due = self._random.expovariate(rate)
        while self._plan.seconds is None or due < self._plan.seconds:
            question = next(self._questions, None)
            if question is None:
                return
            await asyncio.sleep(due - self.seconds)  # nothing, when it is late already
            tasks.create_task(self._ask(question, due))
            due += self._random.expovariate(rate)

    async def _ask(self, question: dict[str, Any], due: float) -> None:
        sent, status, first, answer = self.seconds, "200", None, None
        try:
            first, answer = await self._answered(question)
        except Broken as broken:
            status = str(broken)
        except httpx.TransportError as error:
            status = f"no answer ({type(error).__name__})"
        except ValueError:
            status = "no answer (not JSON)"
        self.outcomes.append(Outcome(due=due, sent=sent, first=first, done=self.seconds, status=status, answer=answer))

    async def _answered(self, question: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
        """When the first piece came, and the whole answer."""
        async with self._client.stream("POST", GENERATE, json=question) as response:
            if not response.is_success:
                await response.aread()
                raise Broken(_refusal(response))
            if not question.get("stream"):
                whole: dict[str, Any] = json.loads(await response.aread())
                return None, whole
            first = None
            async for name, data in events(response):
                first = first or self.seconds
                if name == "error":
                    raise Broken(_named(data.get("status"), data))
                if name == "end":
                    return first, data
        raise Broken("cut off")


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The server-sent events of an answer, each with its name and its JSON."""
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def _refusal(response: httpx.Response) -> str:
    try:
        return _named(response.status_code, response.json())
    except ValueError:
        return str(response.status_code)


def _named(status: int | None, problem: Any) -> str:
    """A status and the name of the problem, such as `429 queue-full`."""
    kind = str(problem.get("type", "")) if isinstance(problem, dict) else ""
    return f"{status} {kind.removeprefix('/problems/')}".strip()
