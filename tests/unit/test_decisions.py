from __future__ import annotations

import asyncio
import threading

import pytest

from service.errors import ShuttingDown
from service.runtime.decisions import PROMPTS_AT_ONCE, Decisions
from service.runtime.owner import Owner

pytestmark = pytest.mark.anyio


class SlowMemory:
    """Answers each prompt with itself, once it is let."""

    def __init__(self):
        self.asked = asyncio.Event()
        self.free = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.batches = []

    def decide(self, prompts):
        self.batches.append(list(prompts))
        self._loop.call_soon_threadsafe(self.asked.set)
        self.free.wait(10)
        if "bad" in prompts:
            raise ValueError("a bad prompt")
        return [f"verdict on {prompt}" for prompt in prompts]


@pytest.fixture
async def busy():
    """A memory that is deciding for a first caller, the decisions in front of it, and that caller's task."""
    memory, owner = SlowMemory(), Owner("memory")
    decisions = Decisions(memory, owner)
    first = asyncio.create_task(decisions.decide(["first"]))
    await memory.asked.wait()
    yield memory, decisions, first
    memory.free.set()
    owner.close()


async def all_waiting(*calls):
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def test_what_arrives_while_the_memory_is_busy_is_decided_together_and_each_gets_its_own(busy):
    memory, decisions, first = busy
    tasks = await all_waiting(decisions.decide(["a", "b"]), decisions.decide(["c"]), decisions.decide([]))
    memory.free.set()
    assert await asyncio.gather(first, *tasks) == [
        ["verdict on first"],
        ["verdict on a", "verdict on b"],
        ["verdict on c"],
        [],
    ]
    assert memory.batches == [["first"], ["a", "b", "c"]]


async def test_a_batch_is_bounded_but_no_callers_prompts_are_parted(busy):
    memory, decisions, first = busy
    half = PROMPTS_AT_ONCE // 2 + 1
    tasks = await all_waiting(*(decisions.decide([f"{caller}"] * half) for caller in range(3)))
    memory.free.set()
    await asyncio.gather(first, *tasks)
    assert [len(batch) for batch in memory.batches] == [1, 2 * half, half]


async def test_a_caller_who_left_is_not_decided_for(busy):
    memory, decisions, first = busy
    gone, stays = await all_waiting(decisions.decide(["gone"]), decisions.decide(["stays"]))
    gone.cancel()
    await asyncio.sleep(0)
    memory.free.set()
    assert await stays == ["verdict on stays"]
    await first
    assert memory.batches == [["first"], ["stays"]]


async def test_a_failure_reaches_everyone_in_its_batch_and_nobody_after(busy):
    memory, decisions, first = busy
    tasks = await all_waiting(decisions.decide(["bad"]), decisions.decide(["beside"]))
    memory.free.set()
    await first
    for task in tasks:
        with pytest.raises(ValueError, match="a bad prompt"):
            await task
    assert await decisions.decide(["after"]) == ["verdict on after"]


async def test_a_closed_owner_is_an_error_that_says_so():
    owner = Owner("memory")
    owner.close()
    with pytest.raises(ShuttingDown):
        await Decisions(SlowMemory(), owner).decide(["too late"])
