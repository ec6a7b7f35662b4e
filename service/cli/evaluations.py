"""`errata eval`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from service.cli.client import DEFAULT_URL, REFUSED, Url, call, call_for_text, given
from service.cli.following import counted
from service.cli.output import Json, failure, note, save, show_json, show_table

if TYPE_CHECKING:
    from editors.edit import EditDescriptor
    from editors.evaluation.cases import Case

_MISUSED, _INTERRUPTED = 2, 130
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGER = 0.25, 5.0, 1.25
"""Seconds between two looks: a short run is soon seen to end, and a long one, with all its cases, is seldom sent."""
_GOING_ON = {"queued", "running"}


def evaluate(
    *,
    suite: Annotated[str | None, typer.Option(help="The name of a suite, such as drift.")] = None,
    edits: Annotated[str | None, typer.Option(metavar="active|ID,ID...", help="Edits in force.")] = None,
    cases: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A file of cases.")] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="Of the file: counterfact, zsre, easyedit or jsonl.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="memory, base, serac, or a version such as v1.")] = None,
    edits_at_once: Annotated[
        str | None, typer.Option(metavar="N,N...", help="Edits held together; several numbers give a curve.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="One to measure; may be repeated. All when left out.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many cases: a suite's at random, a file's first.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws the cases of a suite.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    html: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the report to this file.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Measure whether edits work and break nothing. Ctrl-C cancels it.

    errata eval --edits active
    errata eval --suite drift --against serac --edits-at-once 1,10,75 --html drift.html
    errata eval --cases zsre.json --format zsre --against serac --limit 200
    """
    if sum(source is not None for source in (suite, edits, cases)) != 1:
        raise typer.BadParameter("Give one of the three.", param_hint="--suite, --edits, --cases")
    wanted = {
        "suite": suite,
        "edits": None if edits is None else _edits(edits),
        "cases": None if cases is None else _cases(cases, format_name, limit),
        "against": against,
        "edits_at_once": None if edits_at_once is None else _counts(edits_at_once),
        "metrics": metric,
        "limit": None if cases is not None else limit,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
    }
    evaluation = follow(url, call(url, "POST", "/eval", body=given(wanted)))
    if html is not None:
        save(html, call_for_text(url, f"{path_of(evaluation)}/report"), REFUSED)
    if as_json:
        show_json(evaluation)
    else:
        _show(evaluation)


def follow(url: str, evaluation: dict[str, Any], *, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Wait until an evaluation is done, behind a progress bar. Ctrl-C cancels it on the server.

    Raises:
        typer.Exit: It failed, or somebody else cancelled it, and that has been printed; or as `client.call`.
    """
    path, pause = path_of(evaluation), _FIRST_PAUSE
    try:
        if evaluation["state"] in _GOING_ON:
            note(f"{evaluation['id']} is {evaluation['state']}: {evaluation['total']:,} probes")
        with counted() as progress:
            task = progress.add_task(evaluation["id"], total=evaluation["total"])
            while evaluation["state"] in _GOING_ON:
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * _LONGER)
                evaluation = call(url, "GET", path, headers=headers)
                progress.update(task, completed=evaluation["done"])
    except KeyboardInterrupt:
        call(url, "DELETE", path, headers=headers)
        note(f"{evaluation['id']} is cancelled")
        raise typer.Exit(_INTERRUPTED) from None
    if evaluation["state"] != "done":
        raise failure(evaluation["error"] or f"{evaluation['id']} was {evaluation['state']}.", "", REFUSED)
    return evaluation


def path_of(evaluation: dict[str, Any]) -> str:
    """Where the service keeps an evaluation."""
    return f"/eval/{quote(evaluation['id'], safe='')}"


def _edits(text: str) -> str | list[str]:
    return text if text == "active" else [name.strip() for name in text.split(",")]


def _counts(text: str) -> list[int]:
    try:
        return [int(count) for count in text.split(",")]
    except ValueError:
        raise typer.BadParameter("It takes numbers, such as 1,10,75.", param_hint="--edits-at-once") from None


def _cases(path: Path, format_name: str | None, limit: int | None) -> list[dict[str, Any]]:
    """The cases of a file as the service takes them. The readers are imported only now: no other command needs them."""
    from editors.errors import InvalidDataset
    from editors.evaluation.datasets import read_cases

    if format_name is None:
        raise typer.BadParameter("A file of cases needs one.", param_hint="--format")
    try:
        return [_case(case) for case in read_cases(path, format_name, limit=limit)]
    except InvalidDataset as error:
        raise failure(error.detail, error.hint, _MISUSED) from None


def _case(case: Case) -> dict[str, Any]:
    return given(
        {
            "id": case.id,
            "edit": None if case.edit is None else _edit(case.edit, case.subject),
            "in_scope": [given(asdict(probe)) for probe in case.in_scope],
            "out_of_scope": [given(asdict(probe)) for probe in case.out_of_scope],
            "previous": case.previous,
            "replies": None if case.replies is None else asdict(case.replies),
        }
    )


def _edit(edit: EditDescriptor, subject: str | None) -> dict[str, Any]:
    """An edit in the form that POST /edits takes."""
    from editors.edit import Claim, QuestionAnswer, Sentiment, Statement

    match edit:
        case QuestionAnswer():
            return given({"prompt": edit.prompt, "target": edit.target, "subject": edit.subject or subject})
        case Claim():
            return {"kind": "fact", "claim": edit.claim, "label": edit.label}
        case Statement():
            return {"kind": "statement", "statement": edit.statement}
        case Sentiment():
            return {"kind": "sentiment", "topic": edit.topic, "sentiment": "positive" if edit.positive else "negative"}


def _show(evaluation: dict[str, Any]) -> None:
    report = evaluation["report"]
    show_table(
        ("METRIC", "FORM", "MODE", "EDITS", "VALUE", "95%", "CASES"),
        (
            (one["metric"], one["form"], one["mode"], one["edits"], one["value"], _interval(one), one["cases"])
            for one in report["measured"]
        ),
    )
    note(f"{evaluation['id']}: {report['failure_count']:,} of {report['probes']:,} probes failed")


def _interval(measured: dict[str, Any]) -> str:
    """A 95% interval, as text."""
    return f"[{measured['low']:.4g}, {measured['high']:.4g}]"
