"""What an hour of everything at once came to, as tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.soak_traffic import OPERATORS, Tally
from service.cli.load_report import percentile

CLIENTS = 32
"""While the capacity is measured."""
MOST_GROWTH = 0.02
"""What is required of resident memory."""
_WARM_UP, _WINDOW = 1 / 6, 1 / 12
"""Of the time: memory is not looked at before, and is a median over so much of it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How the server's process stands.

    Attributes:
        seconds: Since the load began.
        mebibytes: Resident.
        files: Open, sockets included.
    """

    seconds: float
    mebibytes: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        capacity: Questions a second that were answered to `CLIENTS` clients.
        rate: Questions a second that came afterwards.
        seconds: For how long.
        samples: Of the server's process.
    """

    capacity: float
    rate: float
    seconds: float
    tally: Tally
    samples: list[Sample]

    @property
    def start_mebibytes(self) -> float:
        """Resident at the end of the warm-up."""
        return _median(self._between(_WARM_UP, _WARM_UP + _WINDOW))

    @property
    def end_mebibytes(self) -> float:
        """Resident at the end."""
        return _median(self._between(1 - _WINDOW, 1))

    @property
    def growth(self) -> float:
        """From one to the other, as a share."""
        return self.end_mebibytes / self.start_mebibytes - 1

    @property
    def slope(self) -> float:
        """Mebibytes an hour, by a straight line through all that was seen from the end of the warm-up on."""
        seen = self._between(_WARM_UP, 1)
        line = statistics.linear_regression([one.seconds / 3600 for one in seen], [one.mebibytes for one in seen])
        return line.slope

    def _between(self, first: float, last: float) -> list[Sample]:
        seconds = self.samples[-1].seconds
        return [one for one in self.samples if first * seconds <= one.seconds <= last * seconds]


def figures(outcome: Outcome) -> dict[str, Any]:
    """For programs."""
    tally = outcome.tally
    measured = {name: getattr(outcome, name) for name in ("capacity", "rate", "seconds", "growth", "slope")}
    measured |= {name: getattr(outcome, name) for name in ("start_mebibytes", "end_mebibytes")}
    counts = {name: dict(getattr(tally, name)) for name in ("sent", "answered", "refused")}
    times = {name: _milliseconds(getattr(tally, name)) for name in ("latencies", "firsts")}
    return measured | counts | times | {"wrong": tally.wrong, "samples": [asdict(one) for one in outcome.samples]}


def render(outcome: Outcome) -> list[str]:
    """The tables."""
    tally = outcome.tally
    said = (
        f"{CLIENTS} clients were answered {outcome.capacity:.1f} questions a second; then {outcome.rate:.1f} a second "
        f"came at random moments for {outcome.seconds / 60:.0f} minutes, while {OPERATORS} operators posted, changed "
        "and retracted edits one after another. The bundled model, the embedded database, an answer cache that is soon "
        "full. Wrong is a request that is lost, or not answered once, or refused without saying when to come back; an "
        "answer by an edit to what was sent after its retraction; a greedy answer that no edit covers and that the "
        "engine alone does not give; an edit that does not answer its own prompt; a count of the service's own that is "
        "not what was sent."
    )
    memory = (
        "Resident memory of the server from the end of the warm-up, a sixth of the time, to the end. Required: growth "
        f"of at most {MOST_GROWTH:.0%}."
    )
    return [
        said,
        "",
        "| asked | sent | answered | refused with 429 |",
        "| --- | --- | --- | --- |",
        *(
            f"| {kind.replace('_', ' ')} | {sent:,} | {tally.answered[kind]:,} | {tally.refused[kind]:,} |"
            for kind, sent in sorted(tally.sent.items())
        ),
        "",
        "| latency, ms p50 / p99 | first token, ms p50 / p99 | found wrong |",
        "| --- | --- | --- |",
        f"| {_pair(tally.latencies)} | {_pair(tally.firsts)} | {len(tally.wrong)} |",
        "",
        memory,
        "",
        "| after the warm-up (MiB) | at the end (MiB) | growth | slope (MiB an hour) | open files | threads |",
        "| --- | --- | --- | --- | --- | --- |",
        _memory(outcome),
        *(f"- {said}" for said in tally.wrong[:20]),
    ]


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": 1000 * percentile(seconds, percent) for percent in (50, 90, 99)}


def _median(samples: Sequence[Sample]) -> float:
    return statistics.median(one.mebibytes for one in samples)


def _pair(seconds: Sequence[float]) -> str:
    found = _milliseconds(seconds)
    return f"{found['p50']:.0f} / {found['p99']:.0f}"


def _memory(outcome: Outcome) -> str:
    resident = f"{outcome.start_mebibytes:.1f} | {outcome.end_mebibytes:.1f}"
    last = outcome.samples[-1]
    return f"| {resident} | {outcome.growth:+.2%} | {outcome.slope:+.1f} | {last.files} | {last.threads} |"
