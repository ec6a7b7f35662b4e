"""What the comparison of editors found: figures, tables beside the papers' own, and a plot by number of edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.costs import Cost
from benchmarks.estimates import cell, plain
from benchmarks.problems import CONV_SENT, FC, QA, QA_HARD
from benchmarks.report import RESULTS, write
from benchmarks.serac_report import LU, NO_EDITS, RP, SERAC, Measured
from benchmarks.serac_report import PAPER as SERAC_IN_PAPER
from editors.evaluation.intervals import Estimate
from editors.evaluation.records import GENERATED, TEACHER_FORCED

FT, FT_KL, FT_DATA = "FT", "FT + KL", "FT with training data"
ROME, MEND = "ROME", "MEND"
ORDER: Final = (NO_EDITS, FT, FT_KL, FT_DATA, LU, RP, ROME, MEND, SERAC)
PROBLEMS: Final = (QA, QA_HARD, FC, CONV_SENT)

TEN_AT_ONCE: Final[Mapping[str, Mapping[str, tuple[float, float]]]] = MappingProxyType(
    {
        FT: {QA: (0.572, 0.054), QA_HARD: (0.321, 0.109), FC: (0.601, 0.002)},
        LU: {QA: (0.944, 0.051), QA_HARD: (0.515, 0.132), FC: (0.565, 0.01)},
        RP: {QA: (0.487, 0.030), QA_HARD: (0.278, 0.027), FC: (0.627, 0.01), CONV_SENT: (0.506, 0.0)},
        MEND: {QA: (0.823, 0.187), QA_HARD: (0.478, 0.255), FC: (0.598, 0.021), CONV_SENT: (0.494, 2.149)},
        SERAC: SERAC_IN_PAPER,
    }
)
"""ES and DD with 10 edits at once: Mitchell et al. 2022, Table 3 (T5-large, BERT-base, BlenderBot-90M)."""
MEND_BY_BATCH: Final = MappingProxyType(
    {1: (0.98, 0.002), 5: (0.97, 0.005), 25: (0.89, 0.011), 75: (0.78, 0.011), 125: (0.67, 0.012)}
)
"""ES and DD of MEND by edits at once: Mitchell et al. 2022a, Table 5 (BART-base, zsRE)."""

_ONE, _TEN = 1, 10
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A method on a problem with so many edits at once.

    Attributes:
        costs: Of each group: its edits, and what putting them in force took.
        refused: Edits that the method gave up.
    """

    measured: Measured
    costs: tuple[tuple[int, Cost], ...]
    refused: int

    @property
    def seconds_per_edit(self) -> float:
        """The median over the groups."""
        return float(np.median([cost.seconds / edits for edits, cost in self.costs])) if self.costs else 0.0

    @property
    def peak_bytes(self) -> int:
        """The most resident memory that a group took beyond what the process had."""
        return max((cost.peak_bytes for _, cost in self.costs), default=0)


def publish(rows: Sequence[Row]) -> None:
    """Print the tables, and write them to docs/benchmarks with the figures and the plot."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    plot(rows)
    lines = [*render(rows), "![ES and DD by number of edits](comparison.svg)"]
    write("comparison", "Editors compared on atlas-2018", lines, {"figures": figures(rows)})


def figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every figure, for machines."""
    return [
        {
            "problem": row.measured.problem,
            "method": row.measured.method,
            "edits": row.measured.edits,
            "cases": len(row.measured.cases),
            "es": {mode: plain(row.measured.success(mode)) for mode in (GENERATED, TEACHER_FORCED)},
            "dd": {mode: plain(row.measured.drawdown(mode)) for mode in (GENERATED, TEACHER_FORCED)},
            "refused": row.refused,
            "seconds_per_edit": row.seconds_per_edit,
            "peak_bytes": row.peak_bytes,
        }
        for row in rows
    ]


def render(rows: Sequence[Row]) -> list[str]:
    """The tables, in Markdown."""
    return [
        "ES: share of in-scope probes (the edit's question, paraphrases, and for QA-hard claims that it settles) that",
        "get the right answer. DD: share of out-of-scope probes whose answer is not the base's. Answers are generated",
        "freely unless it says otherwise. 95% intervals over cases. Every method answers the same probes, of subjects",
        "that nothing was trained on.",
        "Weight editors need a prompt and what should follow it: statements, labelled claims and moods (FC, ConvSent)",
        "are beyond them, and LU has nothing to look up for a mood. Edits that a method gave up count as not made.",
        "",
        *_at_once(rows, _ONE),
        *_at_once(rows, _TEN),
        *_by_batch(rows),
        *_teacher_forced(rows),
        *_costs(rows),
    ]


def plot(rows: Sequence[Row]) -> None:
    """Write docs/benchmarks/comparison.svg: ES and DD on QA, by edits at once."""
    with mpl.rc_context({"svg.hashsalt": "errata"}):
        drawing = Figure(figsize=(9, 4), layout="constrained")
        axes = drawing.subplots(1, 2, sharex=True)
        for name in ORDER[1:]:
            own = [row.measured for row in _of(rows, QA) if row.measured.method == name]
            for axis, measure in zip(axes, (Measured.success, Measured.drawdown), strict=True):
                _draw(axis, name, [(one.edits, measure(one, GENERATED)) for one in own])
        for axis, title in zip(axes, ("ES", "DD"), strict=True):
            axis.set(title=title, xscale="log", ylim=(-0.03, 1.03), xlabel="edits at once")
            axis.grid(alpha=0.3)
        axes[1].legend(fontsize="small")
        drawing.savefig(RESULTS / "comparison.svg", metadata={"Date": None})


def _draw(axis: Any, label: str, points: Sequence[tuple[int, Estimate | None]]) -> None:
    known = [(size, estimate) for size, estimate in points if estimate is not None]
    if known:
        sizes = [size for size, _ in known]
        axis.plot(sizes, [e.value for _, e in known], marker="o", label=label)
        axis.fill_between(sizes, [e.low for _, e in known], [e.high for _, e in known], alpha=0.12)


def _at_once(rows: Sequence[Row], size: int) -> list[str]:
    title = "One edit at a time" if size == _ONE else f"{size} edits at once"
    columns = [f"{problem} {figure}" for problem in _problems(rows) for figure in ("ES", "DD")]
    lines = [
        f"## {title}",
        "",
        f"Cases: {_cases(rows, size)}.",
        "",
        f"| method | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    for name in ORDER:
        lines.append(f"| {name} | {' | '.join(_cells(rows, name, size))} |")
        if size == _TEN and name in TEN_AT_ONCE:
            paper = [
                f"*{value}*" for problem in _problems(rows) for value in TEN_AT_ONCE[name].get(problem, ("-", "-"))
            ]
            lines.append(f"| *{name}, in SERAC's paper* | {' | '.join(paper)} |")
    rest = ["", "*Papers' figures are of other models and data, teacher-forced.*"] if size == _TEN else []
    return [*lines, *rest, ""]


def _cases(rows: Sequence[Row], size: int) -> str:
    """How many of each problem were measured with so many edits at once."""
    found = {
        row.measured.problem: len(row.measured.cases)
        for problem in _problems(rows)
        for row in _of(rows, problem)
        if row.measured.edits == size
    }
    return ", ".join(f"{cases} ({problem})" for problem, cases in found.items())


def _cells(rows: Sequence[Row], name: str, size: int) -> list[str]:
    cells: list[str] = []
    for problem in _problems(rows):
        found = [r.measured for r in _of(rows, problem) if (r.measured.method, r.measured.edits) == (name, size)]
        one = found[0] if found else None
        cells += ["cannot", "cannot"] if one is None else [cell(one.success(GENERATED)), cell(one.drawdown(GENERATED))]
    return cells


def _by_batch(rows: Sequence[Row]) -> list[str]:
    own = _of(rows, QA)
    sizes = sorted({row.measured.edits for row in own})
    lines = ["## QA, by edits at once: ES / DD (edits given up)", ""]
    lines += [f"| method | {' | '.join(map(str, sizes))} |", f"| --- |{' --- |' * len(sizes)}"]
    lines.append(f"| *cases* | {' | '.join(str(len(_row(own, size).measured.cases)) for size in sizes)} |")
    for name in ORDER:
        cells = [
            _brief(row) for size in sizes for row in own if (row.measured.method, row.measured.edits) == (name, size)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        if name == MEND:
            paper = [
                " / ".join(f"*{v}*" for v in MEND_BY_BATCH[size]) if size in MEND_BY_BATCH else "-" for size in sizes
            ]
            lines.append(f"| *MEND, in its paper (BART-base, zsRE)* | {' | '.join(paper)} |")
    return [*lines, ""]


def _row(rows: Sequence[Row], size: int) -> Row:
    return next(row for row in rows if row.measured.edits == size)


def _brief(row: Row) -> str:
    es, dd = row.measured.success(GENERATED), row.measured.drawdown(GENERATED)
    text = f"{es.value:.3f} / {dd.value:.3f}" if es and dd else "-"
    return f"{text} ({row.refused})" if row.refused else text


def _teacher_forced(rows: Sequence[Row]) -> list[str]:
    lines = [
        "## QA, one edit at a time, teacher-forced as in the papers",
        "",
        "| method | ES | DD |",
        "| --- | --- | --- |",
    ]
    for name in ORDER:
        for row in _of(rows, QA):
            if (row.measured.method, row.measured.edits) == (name, _ONE):
                es, dd = row.measured.success(TEACHER_FORCED), row.measured.drawdown(TEACHER_FORCED)
                lines.append(f"| {name} | {cell(es)} | {cell(dd)} |")
    return [*lines, ""]


def _costs(rows: Sequence[Row]) -> list[str]:
    lines = [
        "## What an edit costs, on QA",
        "",
        "Median seconds per edit, on one thread while each other core was measuring too, and the most memory that a",
        "group of edits took.",
    ]
    lines += [
        "",
        "| method | one at a time, s | 10 at once, s per edit | peak memory, MiB |",
        "| --- | --- | --- | --- |",
    ]
    for name in ORDER[1:]:
        own = {row.measured.edits: row for row in _of(rows, QA) if row.measured.method == name}
        if _ONE in own:
            seconds = [f"{own[size].seconds_per_edit:.3f}" if size in own else "-" for size in (_ONE, _TEN)]
            lines.append(f"| {name} | {' | '.join(seconds)} | {own[_ONE].peak_bytes / _MIB:.0f} |")
    return [*lines, ""]


def _problems(rows: Sequence[Row]) -> list[str]:
    return [problem for problem in PROBLEMS if _of(rows, problem)]


def _of(rows: Sequence[Row], problem: str) -> list[Row]:
    return [row for row in rows if row.measured.problem == problem]
