"""`errata bake`."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from service.cli.client import DEFAULT_URL, REFUSED, Url, call, events, given
from service.cli.following import staged
from service.cli.output import Json, failure, note, show_fields, show_json, show_table

_INTERRUPTED = 130


def bake(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A weight editor: rome, mend or fine_tuning.")],
    *,
    edits: Annotated[str, typer.Option(metavar="active|ID,ID...", help="Edits in force.")] = "active",
    config: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the method; may be repeated.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="edit_success, drawdown, relative_norm or max_new_tokens."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws the unrelated questions.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Write edits into the model's weights, as a new version that is measured and not yet served. Ctrl-C cancels it.

    errata bake mend
    errata bake rome --edits e1,e2 --config layer=0 --gate drawdown=0.05
    """
    wanted = {
        "method": method,
        "edits": edits if edits == "active" else [name.strip() for name in edits.split(",")],
        "config": _values(config, "--config"),
        "gate": _values(gate, "--gate"),
        "seed": seed,
    }
    if dry_run:
        plan = call(url, "POST", "/bakes", body=given(wanted) | {"dry_run": True})
        show_json(plan) if as_json else _show_plan(plan)
        return
    done = _follow(url, call(url, "POST", "/bakes", body=given(wanted)))
    show_json(done) if as_json else _show(done)
    if done["state"] != "done":
        raise failure(_why(done), "", REFUSED)


def _follow(url: str, bake: dict[str, Any]) -> dict[str, Any]:
    """Wait until a bake has ended, behind a progress bar. Ctrl-C cancels it on the server."""
    path = f"/bakes/{quote(bake['id'], safe='')}"
    note(f"{bake['id']} is {bake['state']}: {len(bake['edits']):,} edits by {bake['request']['method']}")
    try:
        with staged() as progress:
            task = progress.add_task("queued", total=100)
            for _, moved in events(url, f"{path}/events"):
                progress.update(task, description=moved["stage"] or moved["state"], completed=moved["percent"])
    except KeyboardInterrupt:
        call(url, "DELETE", path)
        note(f"{bake['id']} is cancelled")
        raise typer.Exit(_INTERRUPTED) from None
    found: dict[str, Any] = call(url, "GET", path)
    return found


def _why(bake: dict[str, Any]) -> str:
    report = bake["report"] or {}
    return report.get("refusal") or bake["error"] or f"{bake['id']} was {bake['state']} before it ended."


def _show(bake: dict[str, Any]) -> None:
    report = bake["report"]
    if report is not None:
        show_table(
            ("MEASURE", "VALUE", "BOUND", "MET"),
            ((one["measure"], one["value"], one["bound"], one["met"]) for one in report["findings"]),
        )
    if bake["version"] is not None:
        note(f"{bake['id']} made {bake['version']}: errata checkpoint activate {bake['version']} serves it")


def _show_plan(plan: dict[str, Any]) -> None:
    show_fields(
        {
            "edits": [edit["id"] for edit in plan["edits"]],
            "left out": [f"{one['id']} ({one['why']})" for one in plan["left_out"]],
            "method": plan["request"]["method"],
            "config": json.dumps(plan["request"]["config"]),
            "advised": plan["advised"],
            "passes": plan["passes"],
            "probes": plan["probes"],
            "seconds": plan["seconds"],
        }
    )


def _values(pairs: list[str] | None, option: str) -> dict[str, Any] | None:
    """Values as JSON where they are, as text where not."""
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, mark, text = pair.partition("=")
        if not mark:
            raise typer.BadParameter(f"It takes NAME=VALUE, not {pair!r}.", param_hint=option)
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values or None
