"""`errata checkpoint`: list, show, diff, activate, rollback, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from service.cli.client import DEFAULT_URL, REFUSED, Url, call, download, given
from service.cli.output import Json, note, show_fields, show_json, show_table

app = typer.Typer(no_args_is_help=True, help="List, show, compare, serve and export versions of the model.")

VersionId = Annotated[str, typer.Argument(metavar="VERSION", help="Such as v3; v0 is the base.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the log.")]


@app.command("list")
def list_versions(
    *,
    limit: Annotated[int | None, typer.Option(min=1, max=200, help="At most this many.")] = None,
    after: Annotated[str | None, typer.Option(metavar="VERSION", help="Only older ones than this.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List versions, newest first, and how many percent of the questions each answers."""
    page = call(url, "GET", "/checkpoints", params={"limit": limit, "after": after})
    if as_json:
        show_json(page)
        return
    show_table(
        ("VERSION", "SERVES", "METHOD", "EDITS", "PARENT", "MADE"),
        (
            (one["id"], f"{one['serves']}%", one["method"], len(one["edits"]), one["parent"], one["created_at"])
            for one in page["data"]
        ),
    )
    if page["has_more"]:
        note(f"more: --after {page['next']}")


@app.command()
def show(version: VersionId, *, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Show what is in a version and what was measured; its weights are verified."""
    found = call(url, "GET", _path(version))
    if as_json:
        show_json(found)
        return
    report = found["report"] or {"findings": []}
    show_fields(
        {
            "version": found["id"],
            "serves": f"{found['serves']}%",
            "base": found["base"]["name"],
            "parent": found["parent"],
            "method": found["method"],
            "edits": [edit["id"] for edit in found["edits"]],
            "outdated": [f"{one['id']} ({one['why']})" for one in found["outdated"]],
            **{one["measure"]: one["value"] for one in report["findings"]},
            "size": found["artifact"] and found["artifact"]["size"],
            "bake": found["bake"],
            "made": found["created_at"],
            "damage": found["damage"],
        }
    )


@app.command()
def diff(
    one: VersionId,
    other: VersionId,
    *,
    prompt: Annotated[list[str], typer.Option(help="What to ask both; may be repeated.")],
    edits: Annotated[bool, typer.Option("--edits/--no-edits", help="Whether edits in memory may answer.")] = False,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Ask two versions the same, and show their answers side by side.

    errata checkpoint diff v0 v1 --prompt "Who is the UK PM?" --prompt "Who painted the Mona Lisa?"
    """
    rows = [
        {"prompt": text, **{version: _answer(url, text, version, edits, max_new_tokens) for version in (one, other)}}
        for text in prompt
    ]
    if as_json:
        show_json({"differ": sum(row[one] != row[other] for row in rows), "answers": rows})
        return
    show_table(
        ("PROMPT", one, other, "SAME"), ((row["prompt"], row[one], row[other], row[one] == row[other]) for row in rows)
    )


@app.command()
def activate(
    version: VersionId,
    *,
    percent: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of the questions; below 100 it is the canary.")
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Let a version answer what no edit does."""
    body = given({"percent": percent, "reason": reason})
    _show_serving(call(url, "POST", f"{_path(version)}/activate", body=body), as_json=as_json)


@app.command()
def rollback(*, reason: Reason = None, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Undo the newest activation: take out the canary, or else serve the version before the active one."""
    _show_serving(call(url, "POST", "/checkpoints/rollback", body=given({"reason": reason})), as_json=as_json)


@app.command()
def export(
    version: VersionId,
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="A tar archive to write.")],
    *,
    kind: Annotated[str, typer.Option("--format", help="peft, a LoRA adapter, or hf, a whole checkpoint.")] = "peft",
    url: Url = DEFAULT_URL,
) -> None:
    """Write a version as others load it."""
    download(url, f"{_path(version)}/export", file, params={"format": kind}, code=REFUSED)
    note(f"{file}: {file.stat().st_size:,} bytes")


def _path(version: str) -> str:
    return f"/checkpoints/{quote(version, safe='')}"


def _answer(url: str, prompt: str, version: str, edits: bool, max_new_tokens: int | None) -> str:  # noqa: FBT001
    body = given({"prompt": prompt, "version": version, "edits": edits, "max_new_tokens": max_new_tokens})
    return str(call(url, "POST", "/generate", body=body)["text"])


def _show_serving(serving: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(serving)
        return
    share = {"canary": f"{serving['canary']}, {serving['percent']}%"} if serving["canary"] else {}
    show_fields({"active": serving["active"], **share})
