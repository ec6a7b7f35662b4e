"""The report of an evaluation as one HTML page, which needs no script, no network and no other file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from service import __version__
from service.domain.evaluations import BASE, MEMORY, Evaluation, EvaluationReport, EvaluationRequest, Measured, Mode

_ES, _DD = "edit_success", "drawdown"
_LABELS = {_ES: "edit success, ES", _DD: "drawdown, DD"}


class _Group(NamedTuple):
    """What the two modes of one figure share."""

    metric: str
    form: str | None
    edits: int

    @property
    def label(self) -> str:
        return _LABELS.get(self.metric, self.metric.replace("_", " "))


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a table: one figure in the modes it exists in."""

    group: _Group
    generated: Measured | None
    forced: Measured | None

    @property
    def cases(self) -> int:
        measured = self.generated or self.forced
        assert measured is not None, "a row is made from a measurement"
        return measured.cases


def render(evaluation: Evaluation) -> str:
    """The page. One that is not done gets a page that says how it stands.

    It draws plots, which takes a good part of a second: call it off the event loop.
    """
    report = evaluation.report
    rows = _rows(report.measured) if report else []
    return _template().render(
        version=__version__,
        evaluation=evaluation,
        report=report,
        facts=_facts(evaluation),
        headline=_headline(rows),
        overall=[row for row in rows if row.group.form is None],
        by_form=[row for row in rows if row.group.form is not None],
        several=len({row.group.edits for row in rows}) > 1,
        curves=_curves(report) if report else None,
        betas=_betas(report) if report else None,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("service.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment.get_template("evaluation_report.html")


def _figure(value: float) -> str:
    """A share to three digits; what is larger, such as an entropy in bits, to one."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def _rows(measured: Iterable[Measured]) -> list[_Row]:
    """Both modes of a figure side by side; metrics and forms in the report's order, then by number of edits."""
    modes: dict[_Group, dict[Mode, Measured]] = {}
    for one in measured:
        modes.setdefault(_Group(one.metric, one.form, one.edits), {})[one.mode] = one
    place = {name: number for number, name in enumerate(dict.fromkeys(group[:2] for group in modes))}
    return [
        _Row(group, modes[group].get(Mode.GENERATED), modes[group].get(Mode.TEACHER_FORCED))
        for group in sorted(modes, key=lambda group: (place[group[:2]], group.edits))
    ]


def _headline(rows: Iterable[_Row]) -> list[_Row]:
    """ES and DD as a user meets them, with the most edits held at once."""
    shown = {row.group.metric: row for row in rows if row.group.form is None and row.generated is not None}
    return [shown[metric] for metric in _LABELS if metric in shown]


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """What was measured, and how: labels and values."""
    request, report = evaluation.request, evaluation.report
    facts = {
        "Cases": _source(request),
        "Against": request.against,
        "Edits held at once": "" if request.against in {MEMORY, BASE} else _listed(map(str, request.edits_at_once)),
        "Metrics": _listed(request.metrics),
        "At most": f"{request.limit:,} cases, drawn with seed {request.seed}" if request.limit is not None else "",
        "Longest answer": f"{request.max_new_tokens:,} tokens",
        "Version of the weights": report.version if report else "",
        "Revision of the edits": f"{report.revision:,}" if report else "",
        "Probes judged": f"{report.probes:,} in {report.seconds:,.1f} s" if report else "",
        "Asked for": f"{evaluation.created_at:%Y-%m-%d %H:%M:%S %Z} by {evaluation.actor}",
        "Ended": f"{evaluation.finished_at:%Y-%m-%d %H:%M:%S %Z}" if evaluation.finished_at else "",
    }
    return [(label, value) for label, value in facts.items() if value]


def _source(request: EvaluationRequest) -> str:
    if request.suite is not None:
        return f"suite {request.suite}"
    if request.edits == ("active",):
        return "every edit in force"
    if request.edits:
        return f"edits {_listed(request.edits)}"
    return f"{len(request.cases):,} sent with the request"


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _curves(report: EvaluationReport) -> Markup | None:
    """ES and DD by number of edits, where there are several."""
    curves = []
    for metric, short in ((_ES, "ES"), (_DD, "DD")):
        for mode, manner in ((Mode.GENERATED, "generated"), (Mode.TEACHER_FORCED, "teacher-forced")):
            points = [m for m in report.measured if (m.metric, m.mode, m.form) == (metric, mode, None)]
            if len(points) > 1:
                curves.append((f"{short}, {manner}", metric == _ES, points))
    if not curves:
        return None
    from service.api import evaluation_plots

    return evaluation_plots.by_edits(curves)


def _betas(report: EvaluationReport) -> Markup | None:
    """Histograms of beta, where a memory decided."""
    if not (report.in_scope_betas or report.out_of_scope_betas):
        return None
    from service.api import evaluation_plots

    return evaluation_plots.betas(report.in_scope_betas, report.out_of_scope_betas)
