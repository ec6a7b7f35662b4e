"""Ask by `/generate` one by one and by `POST /eval` in one run, and compare: `python -m benchmarks.evaluation`.

A thousand hot-fixes are in memory. Half of the questions are about edited facts, in phrasings the model was never
trained on, and half about facts that have not changed. Both ways end with every answer judged; the evaluation scores
the right answers under teacher forcing as well. Then every question is evaluated once more, with a target that nobody
says, so that the reports list each answer word for word.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.hot_fixes import ask, post
from benchmarks.report import write
from benchmarks.running import running_server
from demo.facts import Drift, load_world
from editors.evaluation.text import answers

NEVER_SAID = "an answer that nobody gives"
LISTED = 200
"""Failures that a report lists."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the right answer."""

    prompt: str
    target: str


@dataclass(frozen=True, slots=True)
class Way:
    """One way of asking.

    Attributes:
        seconds: It took.
        wrong: How many answers were not the right one.
        texts: The answers it gave, by prompt; of an evaluation those that its report lists, which are wrong ones.
    """

    seconds: float
    wrong: int
    texts: dict[str, str]


def main() -> None:
    """Run it and write docs/benchmarks/evaluation.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="questions, and hot-fixes in memory")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "data") as server,
        server.client() as client,
    ):
        measure(client, arguments.cases, Random(arguments.seed))


def measure(client: httpx.Client, cases: int, rng: Random) -> None:
    """Post the hot-fixes, ask both ways, compare and report."""
    world = load_world()
    drift = rng.sample(world.drift, min(cases, len(world.drift)))
    post(client, drift, [entry.fact.prompts[0] for entry in drift])
    questions = _questions(drift, cases, rng)
    single, whole = one_by_one(client, questions), in_one_run(client, questions)
    report(len(questions), len(drift), single, whole, listed(client, questions))


def one_by_one(client: httpx.Client, questions: Sequence[Question]) -> Way:
    """Every answer of `/generate`, judged as an evaluation judges it."""
    start = time.perf_counter()
    said = [answer["text"] for answer in ask(client, [question.prompt for question in questions], "one by one")]
    wrong = sum(not answers(text, question.target) for question, text in zip(questions, said, strict=True))
    seconds = time.perf_counter() - start
    return Way(seconds, wrong, {question.prompt: text for question, text in zip(questions, said, strict=True)})


def in_one_run(client: httpx.Client, questions: Sequence[Question]) -> Way:
    """The same by `POST /eval`; the seconds are from posting it to reading its report."""
    start = time.perf_counter()
    found = evaluate(client, [(question.prompt, question.target) for question in questions])
    seconds = time.perf_counter() - start
    return Way(seconds, found["failure_count"], _texts(found))


def listed(client: httpx.Client, questions: Sequence[Question]) -> dict[str, str]:
    """Every answer of evaluations, by prompt."""
    texts: dict[str, str] = {}
    for start in tqdm(range(0, len(questions), LISTED), desc="listing", unit="run", leave=False):
        part = questions[start : start + LISTED]
        texts |= _texts(evaluate(client, [(question.prompt, NEVER_SAID) for question in part]))
    return texts


def evaluate(client: httpx.Client, asked: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The report on prompts and their targets, against the memory."""
    cases = [{"in_scope": [{"prompt": prompt, "target": target}]} for prompt, target in asked]
    posted = client.post("/eval", json={"cases": cases, "metrics": ["edit_success"]}).raise_for_status()
    found = posted.json()
    while found["state"] in {"queued", "running"}:
        time.sleep(0.1)
        found = client.get(posted.headers["location"]).raise_for_status().json()
    if found["report"] is None:
        raise RuntimeError(f"the evaluation is {found['state']}: {found['error']}")
    measured: dict[str, Any] = found["report"]
    return measured


def report(count: int, edits: int, single: Way, whole: Way, every: dict[str, str]) -> None:
    """Write the table."""
    ratio = single.seconds / whole.seconds
    same_wrong, same = _same(whole.texts, single.texts), _same(every, single.texts)
    agreement = (
        f"{ratio:.1f} times as fast. One by one {single.wrong:,} answers are wrong, in one run {whole.wrong:,}; of the "
        f"{len(whole.texts):,} that its report lists, {same_wrong:,} are word for word the same. Listed by evaluations "
        f"of their own, {same:,} of all {count:,} answers are."
    )
    lines = [
        f"| {count:,} questions, {edits:,} hot-fixes in memory | seconds | questions a second |",
        "| --- | --- | --- |",
        f"| `/generate`, one by one | {single.seconds:.1f} | {count / single.seconds:.1f} |",
        f"| `POST /eval`, in one run | {whole.seconds:.1f} | {count / whole.seconds:.1f} |",
        "",
        agreement,
    ]
    figures = {
        "questions": count,
        "edits": edits,
        "one_by_one_seconds": single.seconds,
        "evaluation_seconds": whole.seconds,
        "ratio": ratio,
        "one_by_one_wrong": single.wrong,
        "evaluation_wrong": whole.wrong,
        "same_texts": same,
    }
    write("evaluation", "Evaluating, against asking one by one", lines, figures)


def _texts(found: dict[str, Any]) -> dict[str, str]:
    return {failure["prompt"]: failure["got"] for failure in found["failures"]}


def _same(some: dict[str, str], others: dict[str, str]) -> int:
    return sum(others[prompt] == text for prompt, text in some.items())


def _questions(drift: Sequence[Drift], count: int, rng: Random) -> list[Question]:
    """Half on edited facts, half on facts that have not changed; no prompt twice."""
    world = load_world()
    drifted = {id(entry.fact) for entry in world.drift}
    stable = rng.sample([fact for fact in world.facts if id(fact) not in drifted], count)
    edited = [Question(rng.choice(entry.fact.held_out_prompts), entry.new_object) for entry in drift[: count // 2]]
    others = [Question(rng.choice((*fact.prompts, *fact.held_out_prompts)), fact.object) for fact in stable]
    return list({question.prompt: question for question in (*edited, *others)}.values())[:count]


if __name__ == "__main__":
    main()
