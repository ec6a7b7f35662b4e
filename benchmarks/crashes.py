"""Kill the service, and restart its database, under a stream of writes: `python -m benchmarks.crashes`.

Writers post, change, retract, supersede and import edits, and note every write before they send it. Then the API is
ended with kill -9 at a random moment, and started again; or PostgreSQL is stopped, half of the times as by a crash, and
started again, while the API goes on. Afterwards every acknowledged write must be there, every other one wholly or not
at all, each row with its change and its embeddings; and the index must agree with the database. Some half an hour.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from threading import Event

import httpx
from tqdm import tqdm

import demo
from benchmarks.forked import forked_server, postgresql
from benchmarks.ledger import Ledger, Writer
from benchmarks.report import write
from benchmarks.soundness import disagreements, faces, unanswered
from service.store.embedded import Cluster

WRITERS = 6
LONGEST_LIFE = 0.6
"""Seconds after its first acknowledgement in which a server is killed."""
LONGEST_OUTAGE = 0.5
READY_SECONDS = 60
_SETTINGS = {"ERRATA_SCOPE_CLASSIFIER": str(demo.SIMILARITY)}
"""The classifier that starts soonest: what is kept does not depend on it."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        rounds: Kills, or restarts.
        acknowledged: Writes that were answered with success.
        unacknowledged: Writes that were sent, and answered with 503 or not at all.
        kept: How many of those are there.
        unavailable: How many of those were answered with 503.
        seconds: From each end to the next acknowledgement.
        wrong: What should not be, in words.
    """

    rounds: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0
    kept: int = 0
    unavailable: int = 0
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def main() -> None:
    """Run both, print the table, and write docs/benchmarks/crashes.md and .json."""
    arguments = _arguments()
    killed = api_killed(arguments.rounds, seed=arguments.seed)
    restarted = postgresql_restarted(arguments.restarts, seed=arguments.seed)
    figures = {"api": asdict(killed), "postgresql": asdict(restarted)}
    write("crashes", "Writes that survive crashes", render(killed, restarted), figures)


def api_killed(rounds: int, *, writers: int = WRITERS, seed: int = 0) -> Outcome:
    """Kill the API so many times, and look after each what is there; at the end, at everything.

    Ctrl-C ends it early, with what has been done until then.
    """
    outcome, random = Outcome(), Random(seed)
    ledgers = [Ledger() for _ in range(writers)]
    with postgresql() as (_, url), tempfile.TemporaryDirectory() as folder:
        settings = _SETTINGS | {"ERRATA_DATABASE_URL": url}
        killed_at: float | None = None
        with suppress(KeyboardInterrupt):
            for life in tqdm(range(rounds), desc="kill -9 of the API", disable=None):
                with forked_server(Path(folder) / "data", settings) as server, server.client() as client:
                    _check(outcome, ledgers, url, client, everything=False)
                    with _writing(outcome, ledgers, server.url, f"{seed}.{life}") as acknowledged:
                        acknowledged.wait(READY_SECONDS)
                        if killed_at is not None:
                            outcome.seconds.append(time.monotonic() - killed_at)
                        time.sleep(random.uniform(0, LONGEST_LIFE))
                        server.kill()
                        killed_at = time.monotonic()
                outcome.rounds += 1
        with forked_server(Path(folder) / "data", settings) as server, server.client() as client:
            _check(outcome, ledgers, url, client, everything=True)
    return outcome


def postgresql_restarted(rounds: int, *, writers: int = WRITERS, seed: int = 0) -> Outcome:
    """Stop and start PostgreSQL so many times under one API, and look afterwards what is there."""
    outcome, random = Outcome(), Random(seed)
    ledgers = [Ledger() for _ in range(writers)]
    with (
        postgresql() as (cluster, url),
        tempfile.TemporaryDirectory() as folder,
        forked_server(Path(folder) / "data", _SETTINGS | {"ERRATA_DATABASE_URL": url}) as server,
        server.client() as client,
    ):
        with _writing(outcome, ledgers, server.url, str(seed)) as acknowledged:
            for number in tqdm(range(rounds), desc="restarts of PostgreSQL", disable=None):
                acknowledged.wait(READY_SECONDS)
                time.sleep(random.uniform(0, LONGEST_LIFE))
                _stop(cluster, crash=number % 2 == 1)
                stopped = time.monotonic()
                time.sleep(random.uniform(0, LONGEST_OUTAGE))
                acknowledged.clear()
                cluster.start()
                if not acknowledged.wait(READY_SECONDS):
                    outcome.wrong.append("no write was acknowledged after the restart")
                outcome.seconds.append(time.monotonic() - stopped)
                outcome.rounds += 1
        if server.process.exitcode is not None:
            outcome.wrong.append(f"the API ended with {server.process.exitcode}")
        _wait_until_ready(client)
        _check(outcome, ledgers, url, client, everything=True)
    return outcome


def render(killed: Outcome, restarted: Outcome) -> list[str]:
    """The table."""
    rows = [("kill -9 of the API", killed), ("PostgreSQL stopped, half of the times by a crash", restarted)]
    said = (
        f"{WRITERS} writers at once post, change, retract, supersede and import edits. Whatever ends, ends at a random "
        "moment. Looked for afterwards: acknowledged writes that are lost or not as acknowledged; writes without an "
        "acknowledgement of which a part is there; edits without their change or their embeddings, and changes without "
        "their edit; gaps in the revisions; an index that holds other edits than the database; edits that do not "
        "answer their own prompt. While PostgreSQL is away, writes are answered with 503, and the API is not started "
        "again."
    )
    columns = (
        "what ends, times, writes acknowledged, writes without an answer or with 503, of these kept whole, found wrong,"
        " seconds to the next acknowledgement (median), the longest"
    )
    return [
        said,
        "",
        f"| {columns.replace(', ', ' | ')} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {one.rounds} | {one.acknowledged:,} | {one.unacknowledged:,} | {one.kept:,} | "
            f"{len(one.wrong)} | {statistics.median(one.seconds):.1f} | {max(one.seconds):.1f} |"
            for name, one in rows
        ),
        *(f"- {said}" for _, one in rows for said in one.wrong),
    ]


@contextmanager
def _writing(outcome: Outcome, ledgers: Sequence[Ledger], url: str, seed: str) -> Iterator[Event]:
    """Write while the block runs; it is given what is set at every acknowledgement."""
    acknowledged, stop = Event(), Event()
    threads = [
        Writer(f"w{place}", url, ledger, acknowledged=acknowledged, stop=stop, seed=f"{seed}.{place}")
        for place, ledger in enumerate(ledgers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    outcome.wrong += [str(thread.failure) for thread in threads if thread.failure is not None]


def _check(outcome: Outcome, ledgers: Sequence[Ledger], url: str, client: httpx.Client, *, everything: bool) -> None:
    """Hold what is there against the ledgers, which then go on from it."""
    seen, ids, wrong = faces(url)
    prompts: dict[str, str] = {}
    for ledger in ledgers:
        doubts = list(ledger.doubts)
        outcome.unacknowledged += len(doubts)
        outcome.kept += sum(all(seen.get(tag) == face for tag, face in doubt.items()) for doubt in doubts)
        wrong += ledger.settle(seen)
        ledger.ids |= {tag: ids[tag] for tag in ledger.prompts.keys() & ids.keys()}
        prompts |= {tag: ledger.prompts[tag] for tag in (ledger.prompts if everything else ledger.touched)}
        ledger.touched.clear()
    known = {tag for ledger in ledgers for tag in ledger.prompts}
    wrong += [f"{ids[tag]} is there, and nobody has posted it" for tag in seen if tag not in known]
    wrong += disagreements(client) + unanswered(client, prompts, seen, ids)
    outcome.wrong += wrong
    outcome.acknowledged = sum(ledger.count for ledger in ledgers)
    outcome.unavailable = sum(ledger.unavailable for ledger in ledgers)


def _stop(cluster: Cluster, *, crash: bool) -> None:
    """Stop PostgreSQL in order, or as a crash would: it then recovers from its log."""
    if not crash:
        cluster.stop()
        return
    postmaster = int((cluster.folder / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGQUIT)
    while cluster.running():
        time.sleep(0.02)


def _wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="kills of the API")
    parser.add_argument("--restarts", type=int, default=40, help="restarts of PostgreSQL")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
