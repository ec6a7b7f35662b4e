from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from service.api.evaluation_report import render
from service.domain.evaluations import (
    Evaluation,
    EvaluationReport,
    EvaluationRequest,
    EvaluationState,
    Failure,
    Measured,
    Mode,
)

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOSTILE = "<script>alert('1')</script> & \"quoted\" {{ 7 * 7 }} $\\frac{1}{2}$ 中文 \u202e"
NOTHING = "\N{EN DASH}"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements, the text of its cells, and whether tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data

    @property
    def rows(self) -> list[list[str]]:
        return [[" ".join(cell.split()) for cell in row] for row in self.cells]


def measured(metric="edit_success", mode=Mode.GENERATED, value=0.9, *, edits=1, form=None, cases=40) -> Measured:
    low, high = value - 0.0625, value + 0.0625
    return Measured(metric=metric, mode=mode, value=value, low=low, high=high, cases=cases, edits=edits, form=form)


def failure(**fields) -> Failure:
    wanted = {"prompt": "Who is the UK PM?", "expected": "Boris Johnson", "got": "Theresa May", "beta": 0.4375}
    return Failure(**{"case": "e1", "in_scope": True, "form": "paraphrase", **wanted, **fields})


def report(*measurements: Measured, **fields) -> EvaluationReport:
    empty = {"failures": (), "failure_count": 0, "in_scope_betas": (), "out_of_scope_betas": ()}
    plain = {"probes": 1200, "revision": 7, "version": "v0", "seconds": 12.5}
    return EvaluationReport(measured=measurements, **{**plain, **empty, **fields})


def evaluation(kept: EvaluationReport | None = None, **fields) -> Evaluation:
    state = EvaluationState.QUEUED if kept is None else EvaluationState.DONE
    request = fields.pop("request", EvaluationRequest(suite="drift"))
    plain = {"id": "ev17", "state": state, "actor": "anonymous", "created_at": AT, "total": 1200}
    return Evaluation(request=request, report=kept, **{**plain, **fields})


def page(kept: EvaluationReport | None = None, **fields) -> Page:
    return Page(render(evaluation(kept, **fields)))


def test_a_figure_stands_with_its_interval_and_generated_before_teacher_forced():
    shown = page(
        report(measured(mode=Mode.TEACHER_FORCED, value=0.75), measured(value=0.5), measured("fluency", value=612.34))
    )
    heading, success, fluency = shown.rows[:3]
    assert heading == ["Metric", "Generated [95%]", "Teacher-forced [95%]", "Cases"]
    assert success == ["edit success, ES", "0.500 [0.438, 0.562]", "0.750 [0.688, 0.812]", "40"]
    assert fluency == ["fluency", "612.3 [612.3, 612.4]", NOTHING, "40"]


def test_figures_by_form_have_a_table_of_their_own():
    shown = page(report(measured(value=0.5), measured(value=0.25, form="paraphrase", cases=9)))
    assert ["edit success, ES", "paraphrase", "0.250 [0.188, 0.312]", NOTHING, "9"] in shown.rows
    assert "By form of probe" in shown.text
    assert "By form of probe" not in page(report(measured())).text


def test_success_and_drawdown_are_plotted_by_number_of_edits_where_there_are_several():
    many = [measured(name, value=0.5, edits=count) for count in (75, 1, 10) for name in ("edit_success", "drawdown")]
    shown = page(report(*many))
    assert "By number of edits" in shown.text
    assert shown.tags.count("svg") == 1
    assert [row[:2] for row in shown.rows[1:4]] == [["edit success, ES", count] for count in ("1", "10", "75")]
    alone = page(report(measured(), measured(mode=Mode.TEACHER_FORCED)))
    assert "By number of edits" not in alone.text
    assert "svg" not in alone.tags


def test_betas_are_plotted_where_a_memory_decided():
    shown = page(report(measured(), in_scope_betas=(0.9, 1.0), out_of_scope_betas=(0.0,)))
    assert shown.tags.count("svg") == 1
    for one_side in ({"in_scope_betas": (0.5,)}, {"out_of_scope_betas": (0.5,)}):
        assert "svg" in page(report(measured(), **one_side)).tags


def test_failures_are_listed_with_their_texts_and_the_rest_are_counted():
    failures = (failure(), failure(in_scope=False, form="same subject", prompt="India?", beta=None))
    shown = page(report(measured(), failures=failures, failure_count=1003))
    assert shown.rows[-2] == ["in scope paraphrase", "e1", "Who is the UK PM?", "Boris Johnson", "Theresa May", "0.438"]
    assert shown.rows[-1] == ["out of scope same subject", "e1", "India?", "Boris Johnson", "Theresa May", NOTHING]
    assert "1,003 of 1,200 probes did not come out as they should; the first 2 are" in shown.text
    assert "every probe came out as it should" in page(report(measured())).text


def test_hostile_text_comes_out_as_text():
    texts = {name: f"{name} {HOSTILE}" for name in ("case", "form", "prompt", "expected", "got")}
    kept = report(measured(), measured(form=HOSTILE), failures=(failure(**texts),), failure_count=1)
    shown = page(kept, actor=HOSTILE, request=EvaluationRequest(suite=HOSTILE, metrics=(HOSTILE,)))
    assert "script" not in shown.tags
    for text in (*texts.values(), f"suite {HOSTILE}", f"by {HOSTILE}"):
        assert text in shown.text
    failed = page(state=EvaluationState.FAILED, error=HOSTILE)
    assert "script" not in failed.tags
    assert HOSTILE in failed.text


def test_a_page_fetches_nothing_and_runs_nothing():
    curve = [measured(edits=count) for count in (1, 10)]
    shown = page(report(*curve, in_scope_betas=(0.9,), failures=(failure(),), failure_count=1))
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(shown.tags)
    leading_out = [
        (name, value)
        for name, value in shown.attributes
        if name in {"src", "href", "xlink:href", "action", "srcset"} and not value.startswith("#")
    ]
    assert leading_out == []
    html = render(evaluation(report(*curve, in_scope_betas=(0.9,))))
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html


def test_plots_take_their_colours_from_the_page():
    html = render(evaluation(report(measured(), in_scope_betas=(0.9,), out_of_scope_betas=(0.1,))))
    plot = html[html.index("<svg") : html.index("</svg>")]
    assert "var(--in)" in plot
    assert "var(--out)" in plot
    assert "var(--ink)" in plot
    assert not re.search(r"(fill|stroke): #", plot)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (EvaluationState.QUEUED, "Waiting to be started: 1,200 probes."),
        (EvaluationState.RUNNING, "120 of 1,200 probes judged."),
        (EvaluationState.FAILED, "It failed after 120 of 1,200 probes."),
        (EvaluationState.CANCELLED, "Cancelled after 120 of 1,200 probes."),
    ],
)
def test_an_evaluation_that_is_not_done_says_how_it_stands(state: EvaluationState, said: str):
    shown = page(state=state, done=120, error="Out of memory." if state is EvaluationState.FAILED else None)
    assert said in shown.text
    assert "Figures" not in shown.text
    assert ("Out of memory." in shown.text) == (state is EvaluationState.FAILED)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (EvaluationRequest(suite="drift", limit=1000, seed=3), ["suite drift", "1,000 cases, drawn with seed 3"]),
        (EvaluationRequest(edits=("active",)), ["every edit in force", "memory", "32 tokens"]),
        (EvaluationRequest(edits=("e1", "e2"), against="serac", edits_at_once=(1, 10)), ["edits e1, e2", "1, 10"]),
    ],
)
def test_what_was_measured_is_said(request_: EvaluationRequest, said: list[str]):
    shown = page(report(measured()), request=request_, finished_at=AT)
    for words in (*said, "1,200 in 12.5 s", "2026-01-31 12:00:00 UTC by anonymous"):
        assert words in shown.text


def test_pages_made_at_the_same_time_are_the_same_as_one_by_one():
    pages = [
        evaluation(report(measured(), in_scope_betas=(number / 8,), out_of_scope_betas=(0.1,))) for number in range(8)
    ]
    with ThreadPoolExecutor(4) as pool:
        together = [_without_ids(html) for html in pool.map(render, pages)]
    assert together == [_without_ids(render(one)) for one in pages]
    assert len(set(together)) == 8


def test_an_interval_that_misses_its_value_can_be_plotted():
    above = replace(measured(value=0.5), low=0.6, high=0.4)
    assert "svg" in page(report(above, measured(edits=10))).tags


def _without_ids(html: str) -> str:
    """matplotlib names clip paths afresh each time."""
    return re.sub(r"\bp[0-9a-f]{10}\b|\b[mh][0-9a-f]{10}\b", "ID", html)
