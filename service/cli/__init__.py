"""The command `errata`: it starts the service, and is a client of one that runs.

Exit codes: 0 done, 1 the service refused or could not start, 2 the command was misused, 3 no service answered.
`errata smoke` has codes of its own.
"""

from __future__ import annotations

from typing import Annotated

import typer

from service import __version__
from service.cli import (
    bakes,
    bench,
    checkpoints,
    databases,
    edit_files,
    edits,
    evaluations,
    generations,
    keys,
    matches,
    previews,
    serving,
    smoke,
    stats,
    trace,
    training,
    working,
)

app = typer.Typer(name="errata", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("serve")(serving.serve)
app.command("worker")(working.worker)
app.command("generate")(generations.generate)
edits.app.command("preview")(previews.preview)
edits.app.command("import")(edit_files.import_)
edits.app.command("export")(edit_files.export)
app.add_typer(edits.app, name="edit")
app.command("match")(matches.match)
app.command("eval")(evaluations.evaluate)
app.command("smoke")(smoke.smoke)
app.command("bench")(bench.bench)
app.command("bake")(bakes.bake)
app.add_typer(checkpoints.app, name="checkpoint")
app.add_typer(training.app, name="train")
app.command("stats")(stats.stats)
app.command("trace")(trace.trace)
app.add_typer(keys.app, name="keys")
app.add_typer(databases.app, name="db")


def main() -> None:
    """Run the command."""
    app()


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's own signature
    if wanted:
        typer.echo(f"errata {__version__}")
        raise typer.Exit


@app.callback()
def _errata(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Correct what a language model says: post an edit, and every question in its scope is answered by it."""
