"""`errata serve`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from service.cli.output import failure
from service.errors import StartupError


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 takes a free one.")] = None,
    base_model: Annotated[str | None, typer.Option(help="A Hugging Face id or a folder.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Where the embedded database and other state live.")] = None,
) -> None:
    """Start the service. The options go before the ERRATA_* variables; docs/settings.md lists those."""
    chosen = {"HOST": host, "PORT": port, "BASE_MODEL": base_model, "DATA_DIR": data_dir}
    overrides = {f"ERRATA_{name}": str(value) for name, value in chosen.items() if value is not None}
    try:
        _serve({**os.environ, **overrides})
    except StartupError as error:
        raise failure(error.detail, error.hint, error.exit_code) from None


def _serve(environ: dict[str, str]) -> None:
    """Imports the service only now: it brings torch, which the commands that are clients can do without."""
    from service.settings import load_settings

    settings = load_settings(environ)
    from service.app import serve as run

    run(settings, announce=typer.echo)
