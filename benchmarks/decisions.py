"""How long a scope decision takes, and what an edit weighs: `python -m benchmarks.decisions`.

A decision is embed, retrieve, classify. The first edits are questions of the demonstration's facts, embedded as the
service does; so many more as are asked for have vectors made of theirs (one, plus part of the way between two others),
which lie about as texts of the same kinds do. What is asked is those facts in other words.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from sys import getsizeof
from typing import Any

import numpy as np
from numpy.typing import NDArray

import demo
from benchmarks.memories import CANDIDATES
from benchmarks.report import write
from demo.facts import load_world
from editors.edit import QuestionAnswer
from editors.model.loading import load_base
from editors.serac.cross_encoder import load_scope
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import ScopeClassifier, ScopePair
from service.domain.edits import Descriptor, Edit, EditState, Embeddings, StoredEdit
from service.domain.serving import Serving
from service.domain.versions import BASE_VERSION
from service.runtime.decisions import Decisions
from service.runtime.engine import TransformersEngine
from service.runtime.live_memory import LiveMemory
from service.runtime.live_state import LiveState, Question
from service.runtime.owner import Owner
from service.runtime.versions import LiveServing, LiveVersion

FACTS = 2000
CLIENTS = 32
EDITS_AT_ONCE = 10_000
RECALL_QUERIES = 200
_WEIGHED = 10_000
"""Edits from which on the memory that they take can be told from the process's own."""


@dataclass
class Stages:
    """Seconds that one decision after another spent in each stage."""

    embed: list[float] = field(default_factory=list)
    retrieve: list[float] = field(default_factory=list)
    classify: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


class TimedEncoder(SentenceEncoder):
    """Notes how long it took last."""

    seconds = 0.0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts."""
        start = time.perf_counter()
        vectors = super().encode(texts)
        self.seconds = time.perf_counter() - start
        return vectors


@dataclass
class TimedScope:
    """Notes how long it took last."""

    scope: ScopeClassifier
    seconds: float = 0.0

    @property
    def threshold(self) -> float:
        """The classifier's."""
        return self.scope.threshold

    def beta(self, pairs: Sequence[ScopePair]) -> list[float]:
        """Judge pairs."""
        start = time.perf_counter()
        betas = self.scope.beta(pairs)
        self.seconds = time.perf_counter() - start
        return betas


@dataclass(frozen=True)
class Questions:
    """What the edits say, and what is asked.

    Attributes:
        prompts: One question on each of `FACTS` facts.
        vectors: Their embeddings, [FACTS, width].
        asked: The same facts in other words.
    """

    prompts: list[str]
    vectors: NDArray[np.float32]
    asked: list[str]


def main() -> None:
    """Run it and write docs/benchmarks/decisions.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--requests", type=int, default=300, help="timed one by one")
    parser.add_argument("--seconds", type=float, default=10.0, help=f"of asking by {CLIENTS} clients at once")
    arguments = parser.parse_args()
    encoder = TimedEncoder()
    questions = ask_about_facts(encoder, Random(0))
    figures = {
        str(count): measure(encoder, questions, count, arguments.requests, arguments.seconds)
        for count in arguments.edits
    }
    report(figures)


def ask_about_facts(encoder: SentenceEncoder, rng: Random) -> Questions:
    """Draw the facts."""
    facts = rng.sample(load_world().facts, FACTS)
    prompts = [fact.prompts[0] for fact in facts]
    asked = [rng.choice(fact.held_out_prompts) for fact in facts if fact.held_out_prompts]
    return Questions(prompts, encoder.encode(prompts), asked)


def measure(encoder: TimedEncoder, questions: Questions, count: int, requests: int, seconds: float) -> dict[str, Any]:
    """Fill a memory with so many edits and ask it."""
    scope = TimedScope(load_scope(demo.SCOPE_CLASSIFIER))
    warm_up(encoder, scope, questions)
    before = resident_bytes()
    memory = LiveMemory(encoder, scope, candidates=CANDIDATES, threshold=None)
    for edits in made(encoder.fingerprint, questions, count):
        memory.install(edits, revision=count)
    memory.decide(questions.asked[:20])  # builds the index
    gc.collect()
    text = sum(getsizeof(edit.descriptor.prompt) + getsizeof(edit.descriptor.target) for edit in memory.in_force())
    held = resident_bytes() - before - text
    stages = one_by_one(encoder, scope, memory, questions.asked[:requests])
    return {
        "ms": {
            name: [1000 * float(np.percentile(values, q)) for q in (50, 95)] for name, values in vars(stages).items()
        },
        "per_second": asyncio.run(together(memory, questions.asked, seconds)),
        "bytes_per_edit": held / count,
        "recall": recall(encoder, memory, questions, count),
    }


def warm_up(encoder: TimedEncoder, scope: TimedScope, questions: Questions) -> None:
    """Let the models take the working memory that they keep, which is no edit's."""
    asked = questions.asked[: 2 * CLIENTS]
    encoder.encode(asked)
    edits = [QuestionAnswer(prompt, "It is so") for prompt in questions.prompts[: CANDIDATES * len(asked)]]
    scope.beta(
        [
            ScopePair(descriptor=edit, matched_text=edit.text, text=text, similarity=1.0)
            for edit, text in zip(edits, asked * CANDIDATES, strict=True)
        ]
    )
    gc.collect()


def made(encoder: str, questions: Questions, count: int) -> Iterator[list[StoredEdit]]:
    """Active edits e1, e2, ... in pieces."""
    now, number = datetime.now(UTC), 0
    for vectors in blocks(questions, count):
        piece = []
        for vector in vectors:
            prompt = questions.prompts[number % FACTS]
            descriptor = Descriptor(prompt=prompt if number < FACTS else f"{prompt} {number}", target=f"It is {number}")
            number += 1
            edit = Edit(
                id=f"e{number}",
                revision=number,
                descriptor=descriptor,
                state=EditState.ACTIVE,
                created_at=now + timedelta(microseconds=number),
                updated_at=now + timedelta(microseconds=number),
            )
            piece.append(StoredEdit(edit=edit, embeddings=Embeddings(encoder=encoder, vectors=vector.tobytes())))
        yield piece


def blocks(questions: Questions, count: int) -> Iterator[NDArray[np.float32]]:
    """The unit vectors of the edits, in order; the same ones each time."""
    rng = np.random.default_rng(0)
    for start in range(0, count, EDITS_AT_ONCE):
        size = min(EDITS_AT_ONCE, count - start)
        one, to, off = questions.vectors[rng.integers(0, FACTS, (3, size))]
        mixed = one + 0.6 * (to - off)
        if start == 0:
            mixed[:FACTS] = questions.vectors[:size]
        yield (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def one_by_one(encoder: TimedEncoder, scope: TimedScope, memory: LiveMemory, prompts: Sequence[str]) -> Stages:
    """Time a decision after another."""
    stages = Stages()
    for prompt in prompts:
        scope.seconds = 0.0
        start = time.perf_counter()
        memory.decide([prompt])
        whole = time.perf_counter() - start
        stages.whole.append(whole)
        stages.embed.append(encoder.seconds)
        stages.classify.append(scope.seconds)
        stages.retrieve.append(whole - encoder.seconds - scope.seconds)
    return stages


async def together(memory: LiveMemory, prompts: Sequence[str], seconds: float) -> float:
    """Decisions a second for `CLIENTS` callers, each asking again as soon as it is answered."""
    owner, base = Owner("memory"), LiveVersion(BASE_VERSION, TransformersEngine(load_base(demo.BUNDLE, device="cpu")))
    state = LiveState(memory, LiveServing(Serving(), {base.id: base}))
    decisions, end, rng = Decisions(state, owner), time.perf_counter() + seconds, Random(0)

    async def ask() -> int:
        answered = 0
        while time.perf_counter() < end:
            await decisions.decide([Question(rng.choice(prompts))])
            answered += 1
        return answered

    start = time.perf_counter()
    answered = sum(await asyncio.gather(*(ask() for _ in range(CLIENTS))))
    took = time.perf_counter() - start
    owner.close()
    return answered / took


def recall(encoder: SentenceEncoder, memory: LiveMemory, questions: Questions, count: int) -> float:
    """The share of the nearest edits, as comparing with each one finds them, that the memory finds."""
    prompts = questions.asked[:RECALL_QUERIES]
    queries, start = encoder.encode(prompts), 1
    scores, numbers = np.empty((len(prompts), 0)), np.empty((len(prompts), 0), dtype=np.int64)
    for vectors in blocks(questions, count):
        scores = np.concatenate([scores, queries @ vectors.T], axis=1)
        own = np.broadcast_to(np.arange(start, start + len(vectors)), (len(prompts), len(vectors)))
        numbers = np.concatenate([numbers, own], axis=1)
        best = np.argsort(-scores, axis=1)[:, :CANDIDATES]
        scores, numbers = np.take_along_axis(scores, best, axis=1), np.take_along_axis(numbers, best, axis=1)
        start += len(vectors)
    found = [{candidate.edit_id for candidate in verdict.match.candidates} for verdict in memory.decide(prompts)]
    hits = [len(own & {f"e{n}" for n in exact}) for own, exact in zip(found, numbers.tolist(), strict=True)]
    return sum(hits) / numbers.size


def resident_bytes() -> int:
    """Memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def report(figures: dict[str, dict[str, Any]]) -> None:
    """Write the table."""
    stages = list(Stages().__dict__)
    header = [
        "edits",
        *(f"{stage}, ms p50 / p95" for stage in stages),
        "decisions/s",
        "bytes/edit",
        f"recall@{CANDIDATES}",
    ]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for count, row in figures.items():
        times = [f"{row['ms'][stage][0]:.1f} / {row['ms'][stage][1]:.1f}" for stage in stages]
        held = f"{row['bytes_per_edit']:,.0f}" if int(count) >= _WEIGHED else "-"
        rest = [f"{row['per_second']:.0f}", held, f"{row['recall']:.3f}"]
        lines.append("| " + " | ".join([f"{int(count):,}", *times, *rest]) + " |")
    load = os.getloadavg()[0]
    lines += [
        "",
        f"decisions/s: {CLIENTS} clients asking at once, embedded together as they queue. bytes/edit: beyond its text,",
        "of resident memory; of few edits it is lost in what else the process takes.",
        f"recall@{CANDIDATES}: of as many nearest edits as comparing with every one finds. All of them are read by the",
        "classifier: what is asked is near to many edits.",
        f"Load of the machine at the end: {load:.1f}.",
    ]
    write("decisions", "The time of a scope decision", lines, figures)


if __name__ == "__main__":
    main()
