"""`errata smoke`: for CI, against a staging server. Do the edits in force work, and leave the rest alone?

Exit codes: 0 within the bounds, 1 a bound is missed, 2 no verdict: the server was not reached or not ready, or refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, REFUSED, UNREACHABLE, Url, call, not_ready
from service.cli.evaluations import follow, path_of
from service.cli.junit import junit
from service.cli.output import failure, note, save, show_json, show_table
from service.cli.verdict import Verdict

_MISSED, _NO_VERDICT = 1, 2
_SECONDS_BETWEEN_LOOKS = 0.5
_PAGE, _PROMPTS = 200, 256
"""Most edits of a page, and most prompts that are matched at once."""


def smoke(
    *,
    url: Url = DEFAULT_URL,
    key: Annotated[str | None, typer.Option(help="An API key of the server.")] = None,
    min_es: Annotated[float, typer.Option(min=0, max=1, help="Least ES, edit success.")] = 0.95,
    max_dd: Annotated[float, typer.Option(min=0, max=1, help="Most DD, drawdown.")] = 0.05,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the server to be ready.")] = 60,
    junit_file: Annotated[Path | None, typer.Option("--junit", dir_okay=False, help="Write JUnit XML here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Check the edits in force on a server. It changes none; the server keeps the record of the evaluation.

    Ends with 0 when ES and DD are within their bounds, 1 when not, 2 when that could not be found out.
    """
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with _no_verdict():
        _wait(url, headers, timeout)
        verdict = _judge(url, headers, min_es, max_dd)
    if junit_file is not None:
        save(junit_file, junit(verdict), _NO_VERDICT)
    if as_json:
        show_json(verdict.document)
    else:
        _show(url, verdict)
    raise typer.Exit(0 if verdict.passed else _MISSED)


@contextmanager
def _no_verdict() -> Iterator[None]:
    """Ends the command with 2 where it would end with another command's codes, so that 1 says: a bound is missed."""
    try:
        yield
    except typer.Exit as ended:
        if ended.exit_code in {REFUSED, UNREACHABLE}:
            raise typer.Exit(_NO_VERDICT) from None
        raise


def _wait(url: str, headers: dict[str, str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (reason := not_ready(url, headers=headers)) is not None:
        if time.monotonic() >= deadline:
            raise failure(reason, f"Waited {seconds:g} s; --timeout waits longer.", _NO_VERDICT)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _judge(url: str, headers: dict[str, str], min_es: float, max_dd: float) -> Verdict:
    edits = list(_edits_in_force(url, headers))
    if not edits:
        return Verdict.of([], None, [], min_es=min_es, max_dd=max_dd)
    evaluation = follow(url, call(url, "POST", "/eval", body={"edits": "active"}, headers=headers), headers=headers)
    failures = list(_blamed(url, headers, evaluation["report"]["failures"]))
    return Verdict.of(edits, evaluation, failures, min_es=min_es, max_dd=max_dd)


def _blamed(url: str, headers: dict[str, str], failures: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Failed probes, each with the `edit` to blame: in scope its own, out of scope the one that takes it in."""
    for start in range(0, len(failures), _PROMPTS):
        some = failures[start : start + _PROMPTS]
        prompts = {"prompts": [probe["prompt"] for probe in some]}
        matches = call(url, "POST", "/edits/match", body=prompts, headers=headers)["matches"]
        for probe, match in zip(some, matches, strict=True):
            taken_in_by = None if probe["in_scope"] else match["edit_id"]
            yield {**probe, "edit": taken_in_by or probe["case"]}


def _edits_in_force(url: str, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        wanted = {"state": "active", "limit": _PAGE, "after": after}
        page = call(url, "GET", "/edits", params=wanted, headers=headers)
        yield from page["data"]
        if not page["has_more"]:
            return
        after = page["next"]


def _show(url: str, verdict: Verdict) -> None:
    rows = []
    for edit, failures in verdict.failures.items():
        first = failures[0]
        side = "in scope" if first["in_scope"] else "out of scope"
        rows.append((edit, len(failures), side, first["prompt"], first["expected"], first["got"]))
    if rows:
        show_table(("EDIT", "FAILED", "FIRST OF THEM", "PROMPT", "EXPECTED", "GOT"), rows)
    for bound in verdict.bounds:
        typer.echo(bound)
    typer.echo(verdict.summary)
    if verdict.evaluation is not None:
        note(f"{url.rstrip('/')}{path_of(verdict.evaluation)}/report has the whole report")
