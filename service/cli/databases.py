"""`errata db`: the database itself, without a service."""

from __future__ import annotations

import typer

from service.cli.output import failure
from service.errors import StartupError

app = typer.Typer(no_args_is_help=True, help="Prepare the database.")


@app.callback()
def _db() -> None:
    """Prepare the database."""


@app.command()
def migrate() -> None:
    """Bring the database to what this version of Errata needs; a service does so too when it starts.

    The ERRATA_* variables are those of the service.
    """
    from service.settings import load_settings
    from service.store.migrate import code_head
    from service.store.reach import reached

    try:
        with reached(load_settings()):
            typer.echo(f"the database is at {code_head()}")
    except StartupError as error:
        raise failure(error.detail, error.hint, error.exit_code) from None
