"""`errata edit import` and `errata edit export`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from service.cli.client import DEFAULT_URL, REFUSED, Url, given, opened, refused
from service.cli.edits import Kind
from service.cli.following import counted
from service.cli.output import Json, failure, note, show_json

NDJSON = "application/x-ndjson"
_MISUSED = 2


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="One edit a line, as JSON; - reads stdin.")],
    *,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Add the edits of a file: all of them, or none when a line is bad.

    errata edit import edits.ndjson
    """
    headers = {"Content-Type": NDJSON, "Accept": NDJSON}
    imported = None
    with counted() as bar, opened(url, "POST", "/edits/import", content=_read(file), headers=headers) as response:
        task = bar.add_task("edits", total=None)
        for line in response.iter_lines():
            told = json.loads(line)
            if "detail" in told:
                raise refused(told)
            if "prepared" in told:
                bar.update(task, completed=told["prepared"], total=told["of"])
            else:
                imported = told
    if imported is None:
        raise failure("the answer broke off.", "`errata edit list` shows whether the edits have been added.", REFUSED)
    if as_json:
        show_json(imported)
    else:
        typer.echo(f"{imported['imported']:,} edits imported, at revision {imported['revision']}")


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write them; - writes to stdout.")] = Path("-"),
    *,
    state: Annotated[list[str] | None, typer.Option(help="draft, active or paused; repeatable.")] = None,
    tag: Annotated[str | None, typer.Option(help="Those that carry this label.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Those of this form.")] = None,
    q: Annotated[str | None, typer.Option(help="Those that hold these words.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Write the edits that are drafts, active or paused to a file, one a line, as `errata edit import` reads it."""
    params = given({"state": state, "tag": tag, "kind": kind, "q": q})
    with opened(url, "GET", "/edits/export", params=params) as response, _writing(file) as out:
        lines = 0
        for chunk in response.iter_bytes():
            out.write(chunk)
            lines += chunk.count(b"\n")
    note(f"{lines:,} edits exported")


@contextmanager
def _writing(file: Path) -> Iterator[IO[bytes]]:
    """A file that is there once the block has ended, whole; or stdout."""
    if file == Path("-"):
        yield sys.stdout.buffer
        return
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with unfinished.open("wb") as out:
            yield out
        unfinished.replace(file)
    except OSError as error:
        raise failure(
            f"{file} cannot be written: {error.strerror}.", "Name a file that you may write.", REFUSED
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
    except OSError as error:
        raise failure(f"{file} cannot be read: {error.strerror}.", "Name a file of edits.", _MISUSED) from None
