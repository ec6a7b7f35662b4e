"""`errata worker`."""

from __future__ import annotations

import os

import typer

from service.cli.output import failure
from service.errors import StartupError


def worker() -> None:
    """Do queued jobs beside a service on the same database and artifacts, which leaves them with ERRATA_JOBS=false.

    The ERRATA_* variables are those of the service; docs/settings.md lists them.
    """
    try:
        _work({**os.environ})
    except StartupError as error:
        raise failure(error.detail, error.hint, error.exit_code) from None


def _work(environ: dict[str, str]) -> None:
    """Imports the worker only now, as `errata serve` does."""
    from service.settings import load_settings

    settings = load_settings(environ)
    from service.worker import work

    work(settings, announce=typer.echo)
