"""What the benchmark of MEND found: figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from benchmarks.cases import UNTRAINED
from benchmarks.estimates import cell, plain, share, widened
from benchmarks.report import write
from editors.evaluation.cases import EDIT, PARAPHRASE
from editors.evaluation.intervals import Estimate, bootstrap_statistic
from editors.evaluation.metrics import METRICS
from editors.evaluation.records import GENERATED, TEACHER_FORCED, Mode, Record
from editors.evaluation.success import disagreed
from editors.evaluation.text import answers

PAPER: Final[Mapping[int, tuple[float, float]]] = MappingProxyType(
    {1: (0.98, 0.002), 5: (0.97, 0.005), 25: (0.89, 0.011), 75: (0.78, 0.011), 125: (0.67, 0.012)}
)
"""ES and drop in accuracy of MEND by edits in a batch (Mitchell et al. 2022a, table 5; zsRE, BART-base)."""

_MODES: tuple[Mode, ...] = (GENERATED, TEACHER_FORCED)
_WHAT = (
    "Edits of the drift set by {} ({:.1f} MB), whose training saw none of its subjects. ES is the share of in-scope "
    "probes answered by the new value, DD that of out-of-scope probes whose answer changed; 95% intervals by the "
    "bootstrap over edits."
)
_PAPERS = (
    "Drop in accuracy is what the paper calls drawdown. Its figures are of other data and another base (zsRE, "
    "BART-base, teacher-forced), and of an editor trained for each number of edits; here one editor serves all."
)


@dataclass(frozen=True)
class Batches:
    """The records of all probes, with so many edits in force together.

    Attributes:
        size: Edits in a batch.
        batches: How many.
        records: One for each probe.
    """

    size: int
    batches: int
    records: Sequence[Record] = field(repr=False)

    def success(self, mode: Mode, form: str | None = None) -> Estimate | None:
        """ES, of all in-scope probes or of one form."""
        found = METRICS["edit_success"].estimate(self.records, mode=mode, form=form)
        return found and widened(found)

    def drawdown(self, mode: Mode) -> Estimate | None:
        """DD: share of out-of-scope probes whose answer changed."""
        found = METRICS["drawdown"].estimate(self.records, mode=mode)
        return found and widened(found)

    @property
    def drop(self) -> Estimate:
        """What the MEND paper calls drawdown: by how much fewer out-of-scope probes are answered rightly, generated."""
        asked = [r for r in self.records if not r.in_scope and r.target is not None]
        cases = [record.case for record in asked]
        before = [float(answers(r.before or "", r.target or "")) for r in asked]
        after = [float(answers(r.after or "", r.target or "")) for r in asked]
        return bootstrap_statistic([(before, cases), (after, cases)], lambda m: m[:, 0] - m[:, 1])

    def drawdown_by_form(self) -> dict[str, Estimate]:
        """DD, generated, of each form of out-of-scope probes."""
        outside = [record for record in self.records if not record.in_scope]
        found = {}
        for form in sorted({record.form for record in outside}):
            own = [record for record in outside if record.form == form]
            found[form] = share([float(bool(disagreed(r, GENERATED))) for r in own], [r.case for r in own])
        return found


def publish(settled: Sequence[Batches], alone: Sequence[Batches], editor: Path) -> None:
    """Write docs/benchmarks/mend.md and .json."""
    write("mend", "MEND", render(settled, alone, editor), figures(settled, alone, editor))


def render(settled: Sequence[Batches], alone: Sequence[Batches], editor: Path) -> list[str]:
    """The tables, in Markdown."""
    return [
        _WHAT.format(editor.name, editor.stat().st_size / 1e6),
        "",
        *_table("edits at once", _ROWS, settled),
        "",
        "Without settling, one step of the networks as in the paper:",
        "",
        *_table("the networks' step alone", _ROWS, alone),
        "",
        _PAPERS,
        "",
        "Out-of-scope answers that changed, freely generated, of settled edits:",
        "",
        *_forms(settled),
    ]


def figures(settled: Sequence[Batches], alone: Sequence[Batches], editor: Path) -> dict[str, Any]:
    """The same for programs."""
    return {
        "editor_bytes": editor.stat().st_size,
        "settled": {str(own.size): _figures(own) for own in settled},
        "step_alone": {str(own.size): _figures(own) for own in alone},
    }


def _figures(own: Batches) -> dict[str, Any]:
    by_mode: dict[str, Any] = {
        mode: {
            "es": plain(own.success(mode)),
            "es_by_form": {form: plain(own.success(mode, form)) for form in (EDIT, PARAPHRASE, UNTRAINED)},
            "dd": plain(own.drawdown(mode)),
        }
        for mode in _MODES
    }
    forms = {form: plain(found) for form, found in own.drawdown_by_form().items()}
    return {"batches": own.batches, **by_mode, "drop_in_accuracy": plain(own.drop), "dd_by_form": forms}


_ROWS: Final[Mapping[str, Callable[[Batches], str]]] = MappingProxyType(
    {
        "batches": lambda own: str(own.batches),
        "ES, freely generated": lambda own: cell(own.success(GENERATED)),
        "of the edited question": lambda own: cell(own.success(GENERATED, EDIT)),
        "of phrasings the base was trained on": lambda own: cell(own.success(GENERATED, PARAPHRASE)),
        "of untrained phrasings": lambda own: cell(own.success(GENERATED, UNTRAINED)),
        "DD, freely generated": lambda own: cell(own.drawdown(GENERATED)),
        "drop in accuracy, freely generated": lambda own: cell(own.drop),
        "ES, teacher-forced": lambda own: cell(own.success(TEACHER_FORCED)),
        "DD, teacher-forced": lambda own: cell(own.drawdown(TEACHER_FORCED)),
        "paper: ES": lambda own: f"{PAPER[own.size][0]:.2f}" if own.size in PAPER else "-",
        "paper: drop in accuracy": lambda own: f"{PAPER[own.size][1]:.3f}" if own.size in PAPER else "-",
    }
)


def _table(corner: str, rows: Mapping[str, Callable[[Batches], str]], measured: Sequence[Batches]) -> Iterator[str]:
    yield " | ".join([f"| {corner}", *(str(own.size) for own in measured)]) + " |"
    yield "| --- " * (1 + len(measured)) + "|"
    for name, shown in rows.items():
        yield " | ".join([f"| {name}", *map(shown, measured)]) + " |"


def _forms(measured: Sequence[Batches]) -> Iterator[str]:
    found = {own.size: own.drawdown_by_form() for own in measured}
    forms = sorted({form for own in found.values() for form in own})

    def row(form: str) -> Callable[[Batches], str]:
        return lambda own: cell(found[own.size].get(form))

    yield from _table("probes", {form: row(form) for form in forms}, measured)
