"""Everything at once for an hour, at two thirds of what the service can do: `python -m benchmarks.soak`.

One real server, as `errata serve` starts it. Questions in scope and out of it, greedy, sampled, streamed and long, by
both APIs, come at random moments; meanwhile edits are posted, changed, retracted, matched and listed. No request may
be lost; nothing that was sent after an edit's retraction may be answered by it; every greedy answer that no edit covers
must be what the engine alone says; and the server's memory may not grow. An hour and two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
from tqdm import tqdm

import demo
from benchmarks.report import write
from benchmarks.running import RunningServer, running_server
from benchmarks.soak_report import CLIENTS, Outcome, Sample, figures, render
from benchmarks.soak_traffic import OPERATORS, Known, Tally, Traffic, counted_by
from benchmarks.soundness import disagreements
from demo.facts import load_world
from editors.model.loading import load_base
from service.domain.generations import Sampling
from service.runtime.engine import TransformersEngine

SHARE = 2 / 3
"""Of the capacity, from then on."""
PROMPTS = 400
LENGTHS = (2, 4, 8, 16, 32)
SAMPLED_EVERY_SECONDS = 5.0
_SETTINGS = {"ERRATA_ANSWER_CACHE_BYTES": str(128 << 10)}
"""A cache that is soon full, so that answers are written, found and forgotten all the while."""


def main() -> None:
    """Run it, print the table, and write docs/benchmarks/soak.md and .json."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "data", _SETTINGS) as server:
        outcome = soak(server, minutes=arguments.minutes, prompts=PROMPTS, seed=arguments.seed)
    write("soak", "Everything at once for an hour", render(outcome), figures(outcome))


def soak(
    server: RunningServer,
    *,
    minutes: float,
    prompts: int,
    seed: int = 0,
    capacity_seconds: float = 60,
    every: float = SAMPLED_EVERY_SECONDS,
) -> Outcome:
    """Load a server, which is nobody else's, and hold it to what it owes."""
    known = alone(prompts, seed=seed)
    capacity, rate, seconds, tally, samples = asyncio.run(
        _load(server, known, 60 * minutes, capacity_seconds, seed=seed, every=every)
    )
    with server.client() as client:
        tally.wrong += disagreements(client)
    return Outcome(capacity=capacity, rate=rate, seconds=seconds, tally=tally, samples=samples)


def alone(count: int, *, seed: int) -> list[Known]:
    """Prompts, and what the engine says to each when there is nothing else; the lengths are mixed."""
    draw, engine = Random(seed), TransformersEngine(load_base(demo.BUNDLE, device="cpu"))
    found = []
    for fact in tqdm(draw.sample(load_world().facts, count), desc="answers alone", disable=None):
        prompt, most = draw.choice(fact.prompts), draw.choice(LENGTHS)
        text = engine.complete(prompt, Sampling(max_new_tokens=most)).text
        found.append(Known(prompt, most, text))
    return found


async def _load(
    server: RunningServer, known: Sequence[Known], seconds: float, capacity_seconds: float, *, seed: int, every: float
) -> tuple[float, float, float, Tally, list[Sample]]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
        before = counted_by((await client.get("/metrics")).text)
        traffic = Traffic(client, known, seed=seed)
        await traffic.prepare()
        operators = [asyncio.create_task(traffic.operate()) for _ in range(OPERATORS)]
        capacity = await _answered_per_second(traffic, capacity_seconds)
        first, traffic.tally = traffic.tally, Tally()
        samples: list[Sample] = []
        watching = asyncio.create_task(_watch(server.process.pid, samples, every))
        start = time.perf_counter()
        await _arrive(traffic, SHARE * capacity, seconds, Random(f"{seed}.arrivals"))
        took = time.perf_counter() - start
        watching.cancel()
        traffic.stopping.set()
        await asyncio.gather(*operators)
        counted = counted_by((await client.get("/metrics")).text)
    tally = traffic.tally
    for handler, sent in (first.by_handler + tally.by_handler).items():
        seen = counted[handler] - before[handler]
        if seen != sent:
            tally.wrong.append(f"{sent} requests of {' '.join(handler)} were sent, and the service counts {seen}")
    tally.wrong += first.wrong
    return capacity, SHARE * capacity, took, tally, samples


async def _answered_per_second(traffic: Traffic, seconds: float) -> float:
    """By `CLIENTS` clients who ask again as soon as they are answered."""
    start = time.perf_counter()

    async def ask_again() -> None:
        while time.perf_counter() - start < seconds:
            await traffic.anything(time.perf_counter())

    await asyncio.gather(*(ask_again() for _ in range(CLIENTS)))
    return len(traffic.tally.latencies) / (time.perf_counter() - start)


async def _arrive(traffic: Traffic, rate: float, seconds: float, random: Random) -> None:
    """Ask at random moments, however many still wait (a Poisson process); until all are answered."""
    start, due = time.perf_counter(), random.expovariate(rate)
    with _bar(seconds) as moved:
        async with asyncio.TaskGroup() as tasks:
            while due < seconds:
                await asyncio.sleep(start + due - time.perf_counter())
                tasks.create_task(traffic.anything(start + due))
                moved(due)
                due += random.expovariate(rate)


async def _watch(pid: int, samples: list[Sample], every: float) -> None:
    start = time.perf_counter()
    while True:
        samples.append(sample(pid, time.perf_counter() - start))
        await asyncio.sleep(every)


def sample(pid: int, seconds: float) -> Sample:
    """How a process stands now."""
    folder = Path("/proc") / str(pid)
    pages = int((folder / "statm").read_text().split()[1])
    files, threads = (len(list((folder / name).iterdir())) for name in ("fd", "task"))
    return Sample(seconds, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, threads)


@contextmanager
def _bar(seconds: float) -> Iterator[Any]:
    with tqdm(total=round(seconds), desc="soak", unit="s", disable=None) as bar:
        yield lambda now: bar.update(int(now) - bar.n)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
