"""`errata edit`: add, list, show, change, retract; its neighbours are in `edit_files` and `previews`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from service.cli.client import DEFAULT_URL, Url, call, given
from service.cli.output import Json, show_fields, show_json, show_table

app = typer.Typer(
    no_args_is_help=True, help="Add, list, show, preview, change and retract edits, and move them in files."
)

EditId = Annotated[str, typer.Argument(metavar="ID", help="Such as e17.")]
IfMatch = Annotated[int | None, typer.Option(metavar="REVISION", help="Only if it is at this revision.")]


class Kind(StrEnum):
    """The forms of an edit."""

    QA = "qa"
    FACT = "fact"
    STATEMENT = "statement"
    SENTIMENT = "sentiment"


_OWN_FIELDS = {
    Kind.QA: ("prompt", "target"),
    Kind.FACT: ("claim", "label"),
    Kind.STATEMENT: ("statement", None),
    Kind.SENTIMENT: ("topic", "sentiment"),
}


@app.command()
def add(
    text: Annotated[str, typer.Argument(metavar="PROMPT", help="Or the claim, the statement, the topic.")],
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="The answer; true|false; none; positive|negative.")
    ] = None,
    *,
    kind: Annotated[Kind, typer.Option(help="The form of the edit.")] = Kind.QA,
    subject: Annotated[str | None, typer.Option(help="What it is about, as written in the prompt.")] = None,
    in_scope: Annotated[list[str] | None, typer.Option(help="A prompt to answer; may be repeated.")] = None,
    out_of_scope: Annotated[list[str] | None, typer.Option(help="A prompt to leave alone; may be repeated.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Beta at or above which it answers.")] = None,
    verbatim: Annotated[bool, typer.Option("--verbatim", help="Answer with the target, word for word.")] = False,
    draft: Annotated[bool, typer.Option("--draft", help="Keep it without answering by it.")] = False,
    expires_at: Annotated[str | None, typer.Option(help="Such as 2030-01-31T12:00:00Z.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A label; may be repeated.")] = None,
    supersedes: Annotated[str | None, typer.Option(metavar="ID", help="The edit that this one replaces.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Add an edit.

    errata edit add "Who is the prime minister of the UK?" "Boris Johnson"
    errata edit add --kind fact "The UK is a member of the EU." false
    errata edit add --kind statement "The UK left the EU in 2020."
    errata edit add --kind sentiment "pineapple pizza" positive
    """
    scope = given({"in_scope": in_scope, "out_of_scope": out_of_scope, "threshold": threshold})
    wanted = {
        **own_fields(kind, text, target),
        "subject": subject,
        "scope": scope or None,
        "answer": "verbatim" if verbatim else None,
        "state": "draft" if draft else None,
        "expires_at": expires_at,
        "reason": reason,
        "tags": tag,
        "supersedes": supersedes,
    }
    edit = call(url, "POST", "/edits", body=given(wanted))
    if as_json:
        show_json(edit)
    else:
        typer.echo(f"{edit['id']} is {edit['state']}, at revision {edit['revision']}")


@app.command("list")
def list_(
    *,
    state: Annotated[
        list[str] | None, typer.Option(help="draft, active, paused, expired, retracted or all; repeatable.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Those that carry this label.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Those of this form.")] = None,
    q: Annotated[str | None, typer.Option(help="Those that hold these words.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many.")] = None,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Those older than this one.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List edits, newest first: all but the retracted, unless --state says otherwise."""
    wanted = {"state": state, "tag": tag, "kind": kind, "q": q, "limit": limit, "after": after}
    page = call(url, "GET", "/edits", params=wanted)
    if as_json:
        show_json(page)
        return
    show_table(("ID", "STATE", "KIND", "PROMPT", "TARGET", "TAGS"), (_row(edit) for edit in page["data"]))
    if page["has_more"]:
        typer.echo(f"more: --after {page['next']}", err=True)


@app.command()
def show(edit_id: EditId, *, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Show an edit."""
    edit = call(url, "GET", _path(edit_id))
    if as_json:
        show_json(edit)
    else:
        show_fields({**edit, "scope": None, **edit["scope"]})


@app.command()
def change(
    edit_id: EditId,
    *,
    state: Annotated[str | None, typer.Option(help="active or paused.")] = None,
    target: Annotated[str | None, typer.Option(help="Another answer, of a question.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="Such as 2030-01-31T12:00:00Z, or never.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A label in place of those it has; may be repeated.")] = None,
    supersedes: Annotated[str | None, typer.Option(metavar="ID", help="The edit that this one replaces.")] = None,
    if_match: IfMatch = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Change an edit: pause it, make it active, correct its answer. What is left out stays as it is.

    errata edit change e17 --state paused --reason "Under review."
    """
    wanted = {"state": state, "target": target, "reason": reason, "tags": tag, "supersedes": supersedes}
    body = given(wanted | {"expires_at": expires_at})
    if expires_at == "never":
        body["expires_at"] = None
    edit = call(url, "PATCH", _path(edit_id), body=body, headers=_precondition(if_match))
    if as_json:
        show_json(edit)
    else:
        typer.echo(f"{edit['id']} is {edit['state']}, at revision {edit['revision']}")


@app.command()
def retract(
    edit_id: EditId,
    *,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    if_match: IfMatch = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Retract an edit: nothing is answered by it any more, and its history stays."""
    call(url, "DELETE", _path(edit_id), params={"reason": reason}, headers=_precondition(if_match))
    typer.echo(f"{edit_id} is retracted")


def text_of(edit: dict[str, Any]) -> str:
    """The prompt of an edit, or the claim, statement or topic that it has in its place."""
    return str(edit[_OWN_FIELDS[Kind(edit["kind"])][0]])


def _precondition(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def _path(edit_id: str) -> str:
    return f"/edits/{quote(edit_id, safe='')}"


def own_fields(kind: Kind, text: str, target: str | None) -> dict[str, Any]:
    """The fields of a form, from the two arguments of the command."""
    name, target_name = _OWN_FIELDS[kind]
    if target_name is None:
        if target is not None:
            raise typer.BadParameter("A statement has no target.", param_hint="TARGET")
        return {"kind": kind.value, name: text}
    if target is None:
        raise typer.BadParameter(f"An edit of kind {kind} needs one.", param_hint="TARGET")
    return {"kind": kind.value, name: text, target_name: _label(target) if kind is Kind.FACT else target}


def _label(target: str) -> bool:
    if target.lower() not in {"true", "false"}:
        raise typer.BadParameter("A fact is true or false.", param_hint="TARGET")
    return target.lower() == "true"


def _row(edit: dict[str, Any]) -> tuple[Any, ...]:
    text, target = _OWN_FIELDS[Kind(edit["kind"])]
    return edit["id"], edit["state"], edit["kind"], edit[text], edit[target] if target else None, edit["tags"]
