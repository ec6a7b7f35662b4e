"""What the benchmark of SERAC's four problems found: figures, tables, and a plot of them by number of edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.estimates import cell, plain, share, widened
from benchmarks.problems import CONV_SENT, FC, QA, QA_HARD
from benchmarks.report import RESULTS, write
from editors.evaluation.cases import Case, Replies
from editors.evaluation.intervals import Estimate, Sample, bootstrap_statistic
from editors.evaluation.metrics import METRICS
from editors.evaluation.records import GENERATED, TEACHER_FORCED, Mode, Record
from editors.evaluation.sentiment import in_wished_mood
from editors.evaluation.success import disagreed, succeeded

SERAC, SIMILARITY_ONLY, LU, RP, NO_EDITS = "SERAC", "SERAC, similarity alone", "LU", "RP", "no edits"
PAPER: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {QA: (0.986, 0.009), QA_HARD: (0.913, 0.028), FC: (0.877, 0.051), CONV_SENT: (0.991, 0.0)}
)
"""ES and DD of SERAC in the paper's Table 3 (teacher-forced; T5-large, BERT-base and BlenderBot-90M)."""

_MODES: tuple[Mode, ...] = (GENERATED, TEACHER_FORCED)
_AT_ONCE = 10
_FEW, _MANY = 1, 1000


@dataclass(frozen=True, slots=True)
class Form:
    """The probes of one form: how many, their ES or DD, and the share of them that an edit answered."""

    form: str
    in_scope: bool
    probes: int
    value: Estimate
    answered_by_an_edit: Estimate


@dataclass(frozen=True)
class Measured:
    """The records of one method on one problem, in memories of one size."""

    problem: str
    method: str
    edits: int
    records: Sequence[Record]
    cases: Sequence[Case] = field(repr=False)

    def success(self, mode: Mode) -> Estimate | None:
        """ES; of edits of mood, generated: share of answers in the wished mood that speak of the topic."""
        if self._replies and mode == TEACHER_FORCED:
            return METRICS["sentiment_success"].estimate(self.records, mode=mode)
        if self._replies:
            return share(*self.successes)
        found = METRICS["edit_success"].estimate(self.records, mode=mode)
        return found and widened(found)

    def drawdown(self, mode: Mode) -> Estimate | None:
        """DD; of edits of mood, teacher-forced: divergence from the base in nats."""
        if self._replies and mode == TEACHER_FORCED:
            return METRICS["sentiment_drawdown"].estimate(self.records, mode=mode)
        found = METRICS["drawdown"].estimate(self.records, mode=mode)
        return found and widened(found)

    @property
    def successes(self) -> Sample:
        """Of each in-scope probe, generated: whether it succeeded, and its case."""
        inside = [record for record in self.records if record.in_scope]
        return [float(self._succeeded(record)) for record in inside], [record.case for record in inside]

    @property
    def drawdowns(self) -> Sample:
        """Of each out-of-scope probe, generated: whether its answer changed, and its case."""
        outside = [record for record in self.records if not record.in_scope]
        return [float(bool(disagreed(r, GENERATED))) for r in outside], [record.case for record in outside]

    @cached_property
    def by_form(self) -> list[Form]:
        """For each form of probes, generated: ES or DD, and the share that an edit answered."""
        forms = sorted({(not record.in_scope, record.form) for record in self.records})
        return [self._form(form, in_scope=not outside) for outside, form in forms]

    def _form(self, form: str, *, in_scope: bool) -> Form:
        own = [record for record in self.records if (record.form, record.in_scope) == (form, in_scope)]
        cases = [record.case for record in own]
        values = [float(self._succeeded(r) if in_scope else bool(disagreed(r, GENERATED))) for r in own]
        edited = [float(bool(record.edited)) for record in own]
        return Form(form, in_scope, len(own), share(values, cases), share(edited, cases))

    def _succeeded(self, record: Record) -> bool:
        if (replies := self._replies.get(record.case)) is None:
            return bool(succeeded(record, GENERATED))
        return in_wished_mood(record.after or "", record.case, replies)

    @cached_property
    def _replies(self) -> dict[str, Replies]:
        return {case.id: case.replies for case in self.cases if case.replies is not None}


def fall(few: Measured, many: Measured) -> Estimate:
    """How much ES - DD falls from one memory to another, generated: the same probes in both, so cases are paired."""
    samples = [few.successes, few.drawdowns, many.successes, many.drawdowns]
    return bootstrap_statistic(samples, lambda m: (m[:, 0] - m[:, 1]) - (m[:, 2] - m[:, 3]))


def publish(measured: Sequence[Measured], notes: Sequence[str]) -> None:
    """Print the tables, and write them to docs/benchmarks with the figures and the plot."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    plot(measured)
    lines = [*render(measured, notes), "", "![ES and DD by number of edits](serac.svg)"]
    found = {"figures": figures(measured), "notes": list(notes)}
    write("serac", "SERAC on the four problems of its paper", lines, found)


def figures(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every figure, for machines."""
    return [
        {
            "problem": one.problem,
            "method": one.method,
            "edits": one.edits,
            "es": {mode: plain(one.success(mode)) for mode in _MODES},
            "dd": {mode: plain(one.drawdown(mode)) for mode in _MODES},
            "by_form": [asdict(form) for form in one.by_form],
        }
        for one in measured
    ]


def render(measured: Sequence[Measured], notes: Sequence[str]) -> list[str]:
    """The tables, in Markdown."""
    return [
        "ES: share of in-scope probes that get the right answer. DD: share of out-of-scope probes whose answer is not",
        "the base's. 95% intervals over cases. Edits and probes are of subjects and topics that neither the scope",
        "classifier nor the last training of the counterfactual model met, and paraphrases are phrasings that the",
        "classifier did not meet; the base, which that model began as, knows the facts as of 2018, and replies of both",
        "moods on every topic. Memories larger than the cases are filled with edits that no probe asks for, of",
        "subjects that may have been trained on: other changed facts (for ConvSent other topics), then facts that have",
        "not changed, and then CounterFact's.",
        "",
        "ConvSent's ES under teacher forcing is the paper's (Eq. 6): z_sent * z_topic, of the topic's five replies of",
        "either mood: how much likelier the wished ones are per token, and whether they are as likely as before; where",
        "no edit answers, the base's own mood counts. Its DD is the divergence from the base, in nats (Eq. 7).",
        "Generated freely, which the paper does not measure, it is the share of replies that name the topic and share",
        "more words with one of the wished replies than with any of the opposite ones.",
        "",
        *(line for note in notes for line in (note, "")),
        *_compared(measured, GENERATED, f"{_AT_ONCE} edits at once, generated freely"),
        *_compared(measured, TEACHER_FORCED, f"{_AT_ONCE} edits at once, teacher-forced as in the paper"),
        *_by_size(measured),
        *_falls(measured),
        *_by_form(measured),
    ]


def plot(measured: Sequence[Measured]) -> None:
    """Write docs/benchmarks/serac.svg: ES above DD for each problem, by number of edits, generated freely."""
    problems = list(dict.fromkeys(one.problem for one in measured))
    with mpl.rc_context({"svg.hashsalt": "errata"}):
        drawing = Figure(figsize=(3.2 * len(problems), 5.5), layout="constrained")
        axes = drawing.subplots(2, len(problems), sharex=True, squeeze=False)
        for column, problem in enumerate(problems):
            for axis, measure in zip(axes[:, column], (Measured.success, Measured.drawdown), strict=True):
                for method in _methods(measured):
                    _draw(axis, method, [(m.edits, measure(m, GENERATED)) for m in _of(measured, problem, method)])
                axis.set(xscale="log", ylim=(-0.03, 1.03))
                axis.grid(alpha=0.3)
            axes[0, column].set_title(problem)
            axes[1, column].set_xlabel("edits held at once")
        axes[0, 0].set_ylabel("ES")
        axes[1, 0].set_ylabel("DD")
        axes[0, 0].legend(fontsize="small")
        drawing.savefig(RESULTS / "serac.svg", metadata={"Date": None})


def _draw(axis: Any, label: str, points: Sequence[tuple[int, Estimate | None]]) -> None:
    known = [(size, estimate) for size, estimate in points if estimate is not None]
    if not known:
        return
    sizes = [size for size, _ in known]
    axis.plot(sizes, [e.value for _, e in known], marker="o", label=label)
    axis.fill_between(sizes, [e.low for _, e in known], [e.high for _, e in known], alpha=0.15)


def _compared(measured: Sequence[Measured], mode: Mode, title: str) -> list[str]:
    problems = list(dict.fromkeys(one.problem for one in measured))
    columns = [f"{problem} {figure}" for problem in problems for figure in ("ES", "DD")]
    lines = [f"## {title}", "", f"| method | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for method in _methods(measured):
        cells = []
        for problem in problems:
            found = [one for one in _of(measured, problem, method) if one.edits == _AT_ONCE]
            cells += [cell(found[0].success(mode)), cell(found[0].drawdown(mode))] if found else ["-", "-"]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    paper = [f"{value:.3f}" for problem in problems for value in PAPER[problem]]
    lines.append(f"| *the paper's SERAC, of other models and data* | {' | '.join(paper)} |")
    return [*lines, ""]


def _by_size(measured: Sequence[Measured]) -> list[str]:
    lines = ["## By number of edits, generated freely (teacher-forced)", ""]
    lines += ["| problem | method | edits | ES | DD |", "| --- | --- | --- | --- | --- |"]
    for problem in dict.fromkeys(one.problem for one in measured):
        for method in _methods(measured):
            lines += [
                f"| {problem} | {method} | {one.edits:,} | {_both(one, 'success')} | {_both(one, 'drawdown')} |"
                for one in _of(measured, problem, method)
            ]
    return [*lines, ""]


def _falls(measured: Sequence[Measured]) -> list[str]:
    lines = [f"## How much ES - DD falls from {_FEW} edit to {_MANY:,}, generated freely", ""]
    lines += ["| problem | method | fall |", "| --- | --- | --- |"]
    rows = []
    for problem in dict.fromkeys(one.problem for one in measured):
        for method in _methods(measured):
            sizes = {one.edits: one for one in _of(measured, problem, method)}
            if _FEW in sizes and _MANY in sizes:
                rows.append(f"| {problem} | {method} | {cell(fall(sizes[_FEW], sizes[_MANY]))} |")
    return [*lines, *rows, ""] if rows else []


def _by_form(measured: Sequence[Measured]) -> list[str]:
    lines = [f"## {SERAC} by form of probe, {_AT_ONCE} edits at once, generated freely", ""]
    lines += ["| problem | form | probes | ES or DD | answered by an edit |", "| --- | --- | --- | --- | --- |"]
    for one in measured:
        if one.method != SERAC or one.edits != _AT_ONCE:
            continue
        for form in one.by_form:
            side, figure = ("in", "ES") if form.in_scope else ("out of", "DD")
            cells = [f"{form.form}, {side} scope", str(form.probes), f"{figure} {cell(form.value)}"]
            lines.append(f"| {one.problem} | {' | '.join([*cells, cell(form.answered_by_an_edit)])} |")
    return lines


def _both(one: Measured, figure: str) -> str:
    return f"{cell(getattr(one, figure)(GENERATED))} ({cell(getattr(one, figure)(TEACHER_FORCED))})"


def _methods(measured: Sequence[Measured]) -> list[str]:
    return [name for name in (SERAC, SIMILARITY_ONLY, RP, LU, NO_EDITS) if any(one.method == name for one in measured)]


def _of(measured: Sequence[Measured], problem: str, method: str) -> list[Measured]:
    return sorted((m for m in measured if (m.problem, m.method) == (problem, method)), key=lambda m: m.edits)
