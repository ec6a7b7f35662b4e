"""Post every hot-fix of the drift set together and ask: `python -m benchmarks.hot_fixes`.

Three groups of questions, before and after: the edited ones; the same facts in phrasings the model was never trained
on; and questions on facts that have not changed. The scope classifier's threshold was chosen on other facts
(`demo/calibrate.py`). Also prints how soon an edit is in force with a thousand in memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import httpx
from tqdm import tqdm

from benchmarks.report import write
from benchmarks.running import running_server
from demo.facts import Drift, Fact, load_world
from editors.evaluation.intervals import Share


def main() -> None:
    """Run it and write docs/benchmarks/hot_fixes.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--others", type=int, default=1000, help="questions on facts that have not changed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "data") as server,
        server.client() as client,
    ):
        measure(client, arguments.others, Random(arguments.seed))


def measure(client: httpx.Client, others: int, rng: Random) -> None:
    """Ask, post, ask again, and report."""
    world = load_world()
    edited = [drift.fact.prompts[0] for drift in world.drift]
    rephrased = [rng.choice(drift.fact.held_out_prompts) for drift in world.drift]
    unrelated = [rng.choice((*fact.prompts, *fact.held_out_prompts)) for fact in _stable(rng, others)]
    before = ask(client, unrelated, "before")
    milliseconds = post(client, world.drift, edited)
    targets = [drift.new_object for drift in world.drift]
    edited_after, rephrased_after = ask(client, edited, "edited"), ask(client, rephrased, "rephrased")
    after = ask(client, unrelated, "unrelated")
    shares = {
        "edited question answers with its new value": _right(edited_after, targets),
        "a phrasing never trained on answers with the new value": _right(rephrased_after, targets),
        "and falls under that edit": Share.of([a["source"] == "edit" for a in rephrased_after]),
        "question on an unchanged fact whose answer changed": _changed(before, after),
    }
    report(shares, milliseconds)


def ask(client: httpx.Client, prompts: Sequence[str], label: str) -> list[dict[str, str]]:
    """The service's greedy answers, in order."""
    return [
        client.post("/generate", json={"prompt": prompt}).raise_for_status().json()
        for prompt in tqdm(prompts, desc=label, unit="answer", leave=False)
    ]


def post(client: httpx.Client, drift: Sequence[Drift], prompts: Sequence[str]) -> list[float]:
    """Post each hot-fix; how long each took to be in force, in ms, which is when its POST returns."""
    milliseconds = []
    for drifted, prompt in zip(tqdm(drift, desc="hot-fixes", unit="edit", leave=False), prompts, strict=True):
        start = time.perf_counter()
        edit = {"prompt": prompt, "target": drifted.new_object, "reason": f"changed {drifted.changed}"}
        client.post("/edits", json=edit).raise_for_status()
        milliseconds.append(1000 * (time.perf_counter() - start))
    return milliseconds


def report(shares: dict[str, Share], milliseconds: list[float]) -> None:
    """Write the table."""
    late = milliseconds[1000:] or milliseconds[-100:]
    lines = ["| of the drift set, all hot-fixes posted together | share, 95% interval |", "| --- | --- |"]
    lines += [f"| {name} | {share} |" for name, share in shares.items()]
    median, slowest = statistics.median(late), statistics.quantiles(late, n=20)[-1]
    speed = f"An edit is in force when its POST returns: median {median:.0f} ms, 95th percentile {slowest:.0f} ms"
    lines += ["", f"{speed}, over the last {len(late)} of {len(milliseconds):,} posts."]
    figures = {name: {"value": s.value, "interval": s.interval, "cases": s.cases} for name, s in shares.items()}
    write("hot_fixes", "Hot-fixing the drift set", lines, {**figures, "post_ms_median": median})


def _stable(rng: Random, count: int) -> list[Fact]:
    world = load_world()
    drifted = {id(drift.fact) for drift in world.drift}
    return rng.sample([fact for fact in world.facts if id(fact) not in drifted], count)


def _right(answers: list[dict[str, str]], targets: list[str]) -> Share:
    return Share.of([answer["text"] == target for answer, target in zip(answers, targets, strict=True)])


def _changed(before: list[dict[str, str]], after: list[dict[str, str]]) -> Share:
    return Share.of([b["text"] != a["text"] for b, a in zip(before, after, strict=True)])


if __name__ == "__main__":
    main()
