"""`errata edit preview`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.client import DEFAULT_URL, Url, call, given
from service.cli.edits import Kind, own_fields
from service.cli.output import Json, note, show_json, show_table


def preview(
    text: Annotated[str, typer.Argument(metavar="PROMPT", help="Or the claim, the statement, the topic.")],
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="The answer; true|false; none; positive|negative.")
    ] = None,
    *,
    probe: Annotated[
        list[str] | None, typer.Option(help="A prompt to ask; may be repeated. The edit's own when left out.")
    ] = None,
    kind: Annotated[Kind, typer.Option(help="The form of the edit.")] = Kind.QA,
    in_scope: Annotated[list[str] | None, typer.Option(help="A prompt to answer; may be repeated.")] = None,
    out_of_scope: Annotated[list[str] | None, typer.Option(help="A prompt to leave alone; may be repeated.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Beta at or above which it answers.")] = None,
    verbatim: Annotated[bool, typer.Option("--verbatim", help="Answer with the target, word for word.")] = False,
    supersedes: Annotated[str | None, typer.Option(metavar="ID", help="The edit that this one replaces.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show what an edit would change, without adding it.

    errata edit preview "Who is the prime minister of the UK?" "Boris Johnson" --probe "Who leads the UK?"
    """
    edit = {
        **own_fields(kind, text, target),
        "scope": given({"in_scope": in_scope, "out_of_scope": out_of_scope, "threshold": threshold}) or None,
        "answer": "verbatim" if verbatim else None,
        "supersedes": supersedes,
    }
    shown = call(url, "POST", "/edits/preview", body=given({"edit": given(edit), "probes": probe}))
    if as_json:
        show_json(shown)
        return
    show_table(
        ("PROMPT", "BETA", "BEFORE", "AFTER"),
        ((one["prompt"], one["beta"], one["before"]["text"], one["after"]["text"]) for one in shown["probes"]),
    )
    for conflict in shown["conflicts"]:
        note(f"{conflict['edit_id']} already answers this prompt: add the edit with --supersedes {conflict['edit_id']}")
