"""The doors of files of edits: newline-delimited JSON, one edit a line, in and out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service.actions import edit_files
from service.actions.edit_files import Told
from service.api.asking import RepeatableAsker, answer, sent
from service.api.bodies import Door, JsonRoute, Tag, Words
from service.api.edit_bodies import ImportedEditBody, KeptEdit
from service.api.edit_pages import wanted_fields
from service.api.guard import needs
from service.api.invalid_requests import field_error
from service.api.links import links
from service.api.problem_documents import document, problem_responses
from service.domain.edits import Edit, EditFilter, EditKind, EditState
from service.domain.imports import MOST_EDITS, Imported, Line
from service.domain.keys import KeyScope
from service.domain.receipts import Answer
from service.errors import (
    ErrataError,
    FieldError,
    ImportRefused,
    Invalid,
    ShuttingDown,
    StoreUnavailable,
    UnsupportedMediaType,
)

router = APIRouter(route_class=JsonRoute, tags=["edits"])

NDJSON = "application/x-ndjson"
_DECLARED = frozenset({NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"})
_LINE: TypeAdapter[KeptEdit] = TypeAdapter(ImportedEditBody)
_FILE = {NDJSON: {"schema": {"type": "string", "description": "One edit a line, as POST /edits takes it."}}}
_EXPORTED: dict[int | str, dict[str, Any]] = {200: {"content": _FILE, "description": "The edits, oldest first."}}

_IMPORTED: dict[int | str, dict[str, Any]] = {
    201: {"links": links("edit_id", "read_edit", "retract_edit", pointer="/ids/0")}
}


class ImportPage(BaseModel):
    """What an import has added."""

    imported: int
    ids: list[str] = Field(description="Of the new edits, in the order of the lines.")
    revision: int = Field(description="Of the newest change; with it the edits are in force.")


class ExportQuery(BaseModel):
    """Which edits to export."""

    model_config = ConfigDict(extra="forbid")

    state: list[Literal["draft", "active", "paused"]] = Field(
        ["draft", "active", "paused"], description="Repeat for several. Those that are over cannot be imported again."
    )
    tag: Tag | None = Field(None, description="Only those that carry this tag.")
    kind: EditKind | None = None
    q: Words | None = Field(None, description="Only those that hold these words, as in GET /edits.")

    def filter(self) -> EditFilter:
        """In the domain's words."""
        states = tuple(EditState(state) for state in self.state)
        return EditFilter(states=states, tag=self.tag, kind=self.kind, q=self.q)


@router.post(
    "/edits/import",
    summary="Import a file of edits",
    status_code=201,
    response_model=ImportPage,
    responses=_IMPORTED
    | problem_responses(UnsupportedMediaType, Invalid, ImportRefused, StoreUnavailable, ShuttingDown),
    openapi_extra={"requestBody": {"required": True, "content": _FILE}},
)
@needs(KeyScope.EDITS_WRITE)
async def import_edits(request: Request, services: Door, asker: RepeatableAsker) -> Response:
    """All of them or none, in one transaction. Bad lines are named in `errors`, the first hundred of them.

    Who accepts `application/x-ndjson` is told, line by line, how far it is, and last what this answers otherwise.
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared not in _DECLARED:
        raise UnsupportedMediaType(
            f"The body is declared as {declared}." if declared else "The body is not declared.",
            hint=f"Send Content-Type: {NDJSON}; with curl, use -H 'Content-Type: {NDJSON}' --data-binary @FILE.",
        )
    lines, bad = await asyncio.to_thread(read, await request.body())
    add = await edit_files.import_(services, lines, bad, actor=asker.actor, receipt=asker.receipt(_imported))
    if NDJSON in request.headers.get("accept", ""):
        return StreamingResponse(_told(add, len(lines), request.state.request_id), media_type=NDJSON)
    return sent(_imported(await add(lambda _: None)))


@router.get(
    "/edits/export",
    summary="Export edits as a file",
    response_class=StreamingResponse,
    status_code=200,  # the response's own class does not say it
    responses=_EXPORTED | problem_responses(Invalid, StoreUnavailable),
)
@needs(KeyScope.EDITS_READ)
async def export_edits(query: Annotated[ExportQuery, Query()], services: Door) -> StreamingResponse:
    """Every line is an edit as `POST /edits/import` takes it; all are of one moment."""
    found = edit_files.export(services, query.filter())
    first = await anext(found, None)  # before the answer begins: a database that is away should still be a 503
    return StreamingResponse(
        _written(first, found),
        media_type=NDJSON,
        headers={"Content-Disposition": 'attachment; filename="edits.ndjson"'},
    )


async def _told(add: Callable[[Told], Awaitable[Imported]], total: int, request_id: str) -> AsyncIterator[str]:
    """How many edits are prepared, time and again, and last how it ended. Who stops listening stops the import."""
    prepared: asyncio.Queue[int | None] = asyncio.Queue()
    adding = asyncio.ensure_future(add(prepared.put_nowait))
    adding.add_done_callback(lambda _: prepared.put_nowait(None))
    try:
        while (done := await prepared.get()) is not None:
            yield f'{{"prepared": {done}, "of": {total}}}\n'
        yield _imported(await adding).body.decode() + "\n"
    except ErrataError as error:
        yield document(error, request_id).decode() + "\n"
    finally:
        adding.cancel()


def _imported(imported: Imported) -> Answer:
    return answer(ImportPage(imported=len(imported.ids), ids=list(imported.ids), revision=imported.revision), 201)


def read(body: bytes) -> tuple[list[Line], list[FieldError]]:
    """The edits of a file, and what is wrong with the lines that are none. Blank lines are passed over.

    Raises:
        Invalid: There are too many.
    """
    lines: list[Line] = []
    bad: list[FieldError] = []
    for number, text in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not text.strip():
            continue
        if len(lines) == MOST_EDITS:
            raise Invalid(
                f"The file holds more than {MOST_EDITS:,} edits.", hint="Import it in parts; each is all or nothing."
            )
        try:
            new = _LINE.validate_python(json.loads(text.decode())).new_edit()
        except ValidationError as error:
            bad += [_bad(number, found) for found in error.errors()]
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            bad.append(FieldError("", f"is not valid JSON in UTF-8 ({reason})", line=number))
        else:
            lines.append(Line(number=number, new=new, key=new.descriptor.key))
    return lines, bad


def _bad(number: int, found: Any) -> FieldError:
    error = field_error(found | {"loc": ("body", *found["loc"])})
    named = f"`{error.pointer[1:]}` {error.detail}" if error.pointer else error.detail
    return FieldError(error.pointer, named, line=number)


async def _written(first: Edit | None, rest: AsyncGenerator[Edit, None]) -> AsyncIterator[str]:
    async with aclosing(rest):
        if first is not None:
            yield _line(first)
        async for edit in rest:
            yield _line(edit)


def _line(edit: Edit) -> str:
    """An edit as it could be posted; what it says by leaving it out is left out."""
    fields = wanted_fields(edit.descriptor)
    scope = {name: value for name, value in fields["scope"].items() if value not in (None, [])}
    expires_at = None if edit.expires_at is None else edit.expires_at.isoformat()
    kept = {"state": edit.state, "expires_at": expires_at, "reason": edit.reason, "tags": list(edit.tags)}
    line = fields | {"scope": scope} | kept
    return json.dumps({name: v for name, v in line.items() if v not in (None, [], {})}, ensure_ascii=False) + "\n"
