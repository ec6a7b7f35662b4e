"""Import a file of edits into a running service, and out again: `python -m benchmarks.imports`.

The edits are questions on the demonstration's facts, each with a number of its own, so that no two are alike. Another
client asks meanwhile, one question after another: what it waits says what an import costs those who are served.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.report import write
from benchmarks.running import RunningServer, running_server
from demo.facts import load_world

NDJSON = "application/x-ndjson"
ONE_BY_ONE = 200
ASKED_ALONE = 50
CHECKED = 100
MATCHED_AT_ONCE = 64


def main() -> None:
    """Run it and write docs/benchmarks/imports.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=10_000)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "data") as server,
        server.client() as client,
    ):
        figures = measure(server, client, arguments.edits) | {"load_before": load}
    write("imports", "Importing a file of edits", render(figures), figures)


def measure(server: RunningServer, client: httpx.Client, count: int) -> dict[str, Any]:
    """Import them, ask, export them, and post some more one by one."""
    file = list(made(count))
    content = "".join(json.dumps(edit) + "\n" for edit in file).encode()
    alone = [timed(partial(ask, client, edit["prompt"])) for edit in file[:ASKED_ALONE]]
    cold = memory(server)
    for start in range(0, count, MATCHED_AT_ONCE):
        prompts = [edit["prompt"] for edit in file[start : start + MATCHED_AT_ONCE]]
        client.post("/edits/match", json={"prompts": prompts}).raise_for_status()
    before = memory(server)
    with asking(server, file[0]["prompt"]) as waits:
        checks, embedding, rest, ids = import_(client, content, count)
    resident, peak = memory(server, "VmRSS"), memory(server, "VmHWM")
    step = max(1, count // CHECKED)
    answered = [ask(client, edit["prompt"]) == edit_id for edit, edit_id in list(zip(file, ids, strict=True))[::step]]
    exported: list[bytes] = []
    export = timed(lambda: exported.append(client.get("/edits/export").raise_for_status().content))
    posts = [timed(partial(post, client, edit)) for edit in made(ONE_BY_ONE, first=count)]
    return {
        "edits": count,
        "bytes": len(content),
        "seconds": {"checks": checks, "embedding": embedding, "commit and install": rest},
        "import_ms_per_edit": 1000 * (checks + embedding + rest) / count,
        "post_ms_per_edit": 1000 * statistics.mean(posts),
        "export_seconds": export,
        "exported": exported[0].count(b"\n"),
        "encoder_bytes": before - cold,
        "bytes_per_edit": (resident - before) / count,
        "peak_bytes_per_edit": (peak - before) / count,
        "answered_by_their_own_edit": sum(answered) / len(answered),
        "ask_ms_alone": percentiles(alone),
        "ask_ms_meanwhile": percentiles(waits),
    }


def made(count: int, *, first: int = 0) -> Iterator[dict[str, str]]:
    """Edits, each with a prompt of its own."""
    facts = load_world().facts
    for number in range(first, first + count):
        fact = facts[number % len(facts)]
        round_ = number // len(facts)
        prompt = fact.prompts[round_ % len(fact.prompts)]
        yield {"prompt": f"{prompt} ({number})", "target": f"Answer {number}", "answer": "verbatim"}


def import_(client: httpx.Client, content: bytes, count: int) -> tuple[float, float, float, list[str]]:
    """Seconds until the first edits are prepared, until the last are, and until all are in force; and their ids."""
    headers = {"Content-Type": NDJSON, "Accept": NDJSON}
    times = [time.perf_counter()]
    told: dict[str, Any] = {}
    with (
        tqdm(total=count, desc="import", unit="edit", leave=False) as bar,
        client.stream("POST", "/edits/import", content=content, headers=headers) as response,
    ):
        for line in response.raise_for_status().iter_lines():
            told = json.loads(line)
            if "prepared" in told:
                bar.update(told["prepared"] - bar.n)
                if len(times) == 1 or told["prepared"] == count:
                    times.append(time.perf_counter())
    times.append(time.perf_counter())
    start, first, last, end = times
    assert told["imported"] == count, told
    return first - start, last - first, end - last, told["ids"]


@contextmanager
def asking(server: RunningServer, prompt: str) -> Iterator[list[float]]:
    """Another client asks one question after another while the block runs; how long it waited each time, in seconds."""
    waits: list[float] = []
    ended = threading.Event()

    def run() -> None:
        with server.client() as client:
            while not ended.is_set():
                waits.append(timed(partial(ask, client, prompt)))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()


def ask(client: httpx.Client, prompt: str) -> str | None:
    """The edit that answers."""
    answer = client.post("/generate", json={"prompt": prompt, "max_new_tokens": 8}).raise_for_status().json()
    edit_id: str | None = answer["edit_id"]
    return edit_id


def post(client: httpx.Client, edit: dict[str, str]) -> None:
    """Add one edit."""
    client.post("/edits", json=edit).raise_for_status()


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In ms."""
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return {"p50": 1000 * statistics.median(seconds), "p95": 1000 * cuts[-1], "max": 1000 * max(seconds)}


def memory(server: RunningServer, name: str = "VmRSS") -> int:
    """Bytes of the service's memory, now or at their most; PostgreSQL's are its own."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def render(figures: dict[str, Any]) -> list[str]:
    """The table."""
    seconds = figures["seconds"]
    waits = {name: "{p50:.0f} / {p95:.0f} / {max:.0f}".format(**figures[f"ask_ms_{name}"]) for name in WAITS}
    rows = {
        "import, until all are in force": f"{sum(seconds.values()):.1f} s",
        **{f"of which {name}": f"{value:.1f} s" for name, value in seconds.items()},
        "time per edit, imported": f"{figures['import_ms_per_edit']:.2f} ms",
        f"time per edit, posted one by one ({ONE_BY_ONE} more)": f"{figures['post_ms_per_edit']:.1f} ms",
        "the second by the first": f"{figures['post_ms_per_edit'] / figures['import_ms_per_edit']:.1f}",
        "memory per edit, afterwards": f"{figures['bytes_per_edit']:,.0f} bytes",
        "memory per edit, at most": f"{figures['peak_bytes_per_edit']:,.0f} bytes",
        "export of all": f"{figures['export_seconds']:.1f} s",
        "another client's answer, ms p50 / p95 / max, before": waits["alone"],
        "and during the import": waits["meanwhile"],
        "of the imported questions, answered by their own edit": f"{figures['answered_by_their_own_edit']:.3f}",
    }
    notes = [
        "",
        "Memory per edit is what the service's process has grown by. Its encoder had embedded the same prompts",
    ]
    notes += [
        f"before, since it keeps memory for batches of every shape: {figures['encoder_bytes'] / 1e6:.0f} MB by then.",
        "",
        f"Load of the machine before: {figures['load_before']:.1f}.",
    ]
    title = f"{figures['edits']:,} edits, a file of {figures['bytes'] / 1e6:.1f} MB"
    return [f"| {title} | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items()), *notes]


WAITS = ("alone", "meanwhile")

if __name__ == "__main__":
    main()
