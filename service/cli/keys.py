"""`errata keys`: create, list, revoke. It works on the database itself, so it needs no key, and no running service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from service.cli.output import Json, failure, note, show_json, show_table
from service.domain.keys import ApiKey, KeyScope

if TYPE_CHECKING:
    from service.store.store import PostgresStore

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys, in the database itself.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; signs what its holder changes.")],
    *,
    scope: Annotated[list[KeyScope] | None, typer.Option(help="What it opens; may be repeated.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="Such as 2030-01-31T12:00:00Z.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print its token, which is shown this once.

    errata keys create deploy-bot --scope edits:read --scope edits:write
    """
    from service.actions import keys

    until = _moment(expires_at)
    made = _on_store(lambda store: keys.create(store, name, scope or (), expires_at=until))
    if as_json:
        show_json({**_document(made.key), "token": made.token})
        return
    typer.echo(made.token)
    note(f"{made.key.id}, {made.key.name}: {', '.join(sorted(made.key.scopes)) or 'no scope'}. It is not shown again.")


@app.command("list")
def list_(*, as_json: Json = False) -> None:
    """List every key that was ever made, oldest first."""
    from service.actions import keys

    found = [_document(key) for key in _on_store(keys.every)]
    if as_json:
        show_json({"data": found})
    else:
        columns = ("id", "name", "state", "scopes", "created_at", "expires_at", "revoked_at")
        show_table([column.upper() for column in columns], ([key[column] for column in columns] for key in found))


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="Such as k3.")]) -> None:
    """End a key: no replica takes it a second later."""
    from service.actions import keys

    key = _on_store(lambda store: keys.revoke(store, key_id))
    typer.echo(f"{key.id}, {key.name}, is revoked")


def _document(key: ApiKey) -> dict[str, object]:
    state = "revoked" if key.revoked_at else "active" if key.holds_at(datetime.now(UTC)) else "expired"
    times = {"created_at": key.created_at, "expires_at": key.expires_at, "revoked_at": key.revoked_at}
    shown = {name: at and at.isoformat(timespec="seconds").replace("+00:00", "Z") for name, at in times.items()}
    return {"id": key.id, "name": key.name, "state": state, "scopes": sorted(key.scopes), **shown}


def _moment(written: str | None) -> datetime | None:
    if written is None:
        return None
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at <= datetime.now(UTC):
        raise typer.BadParameter("must be a time to come, with its zone.", param_hint="--expires-at")
    return at


def _on_store(work: Callable[[PostgresStore], Awaitable[T]]) -> T:
    """Work on the store that the ERRATA_* variables name. Brings what the commands that are clients do without."""
    from service.settings import load_settings
    from service.store.reach import reached
    from service.store.store import PostgresStore

    async def worked(url: str) -> T:
        async with PostgresStore(url) as store:
            return await work(store)

    with _refusals(), reached(load_settings()) as url:
        return asyncio.run(worked(url))


@contextmanager
def _refusals() -> Iterator[None]:
    from service.errors import ErrataError

    try:
        yield
    except ErrataError as error:
        raise failure(error.detail, error.hint, 1) from None
