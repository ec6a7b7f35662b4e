"""The door of edits."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict

from service.actions import edits
from service.api.asking import Asker, RepeatableAsker, answer, sent
from service.api.bodies import Door, JsonRoute, Reason
from service.api.edit_bodies import EditQuery, NewEditBody
from service.api.edit_changes import ChangedEditBody
from service.api.edit_pages import AnyEdit, EditList, History, render_edit, render_history, render_page
from service.api.guard import needs
from service.api.links import links
from service.api.problem_documents import problem_responses
from service.domain.edits import Edit
from service.domain.keys import KeyScope
from service.domain.receipts import Answer
from service.errors import (
    EditConflict,
    EditNotFound,
    EditTooLong,
    IllegalMove,
    Invalid,
    MalformedJson,
    PreconditionFailed,
    StoreUnavailable,
    Unavailable,
    UnsupportedMediaType,
)

router = APIRouter(route_class=JsonRoute, tags=["edits"])

_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')
_ETAG = {"description": "The edit's revision in quotes; send it in If-Match.", "schema": {"type": "string"}}

EditId = Annotated[str, Path(description="Such as e17.")]
IfMatch = Annotated[
    list[str] | None, Header(alias="If-Match", description="ETags; go on only if one of them is the edit's.")
]


class RetractQuery(BaseModel):
    """What can be said of a retraction."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason | None = None


_NEXT = ("read_edit", "change_edit", "retract_edit", "read_history")
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {"Location": {"description": "The edit's path.", "schema": {"type": "string"}}, "ETag": _ETAG},
        "links": links("edit_id", *_NEXT),
    }
}
_LISTED: dict[int | str, dict[str, Any]] = {200: {"links": links("edit_id", *_NEXT, pointer="/data/0/id")}}
_READ: dict[int | str, dict[str, Any]] = {200: {"headers": {"ETag": _ETAG}}}


@router.post(
    "/edits",
    summary="Add an edit",
    status_code=201,
    response_model=AnyEdit,
    responses=_CREATED
    | problem_responses(
        MalformedJson, EditNotFound, EditConflict, UnsupportedMediaType, Invalid, EditTooLong, StoreUnavailable
    ),
)
@needs(KeyScope.EDITS_WRITE)
async def add_edit(body: NewEditBody, services: Door, asker: RepeatableAsker) -> Response:
    """From the answer on, this replica answers every in-scope prompt by the edit, unless it is a draft."""
    edit = await edits.submit(services, body.new_edit(), actor=asker.actor, receipt=asker.receipt(_created))
    return sent(_created(edit))


def _created(edit: Edit) -> Answer:
    return answer(render_edit(edit), 201, Location=f"/edits/{edit.id}", ETag=f'"{edit.revision}"')


@router.get("/edits", summary="List edits", responses=_LISTED | problem_responses(Invalid, StoreUnavailable))
@needs(KeyScope.EDITS_READ)
async def list_edits(query: Annotated[EditQuery, Query()], services: Door) -> EditList:
    """Newest first; all but the retracted unless `state` says otherwise."""
    return render_page(await edits.page(services, query.filter()))


@router.get(
    "/edits/{edit_id}",
    summary="Read an edit",
    responses=_READ | problem_responses(EditNotFound, Invalid, StoreUnavailable),
)
@needs(KeyScope.EDITS_READ)
async def read_edit(edit_id: EditId, response: Response, services: Door) -> AnyEdit:
    """In whatever state it is, retracted included."""
    edit = await edits.read(services, edit_id)
    response.headers["ETag"] = f'"{edit.revision}"'
    return render_edit(edit)


@router.get(
    "/edits/{edit_id}/history",
    summary="Read the history of an edit",
    responses=problem_responses(EditNotFound, Invalid, StoreUnavailable),
)
@needs(KeyScope.EDITS_READ)
async def read_history(edit_id: EditId, services: Door) -> History:
    """Every change to the edit, oldest first, with its author and reason."""
    return render_history(await edits.history(services, edit_id))


@router.patch(
    "/edits/{edit_id}",
    summary="Change an edit",
    responses=_READ
    | problem_responses(
        MalformedJson,
        EditNotFound,
        EditConflict,
        IllegalMove,
        PreconditionFailed,
        UnsupportedMediaType,
        Invalid,
        EditTooLong,
        StoreUnavailable,
        Unavailable,
    ),
)
@needs(KeyScope.EDITS_WRITE)
async def change_edit(
    edit_id: EditId, body: ChangedEditBody, response: Response, services: Door, asker: Asker, if_match: IfMatch = None
) -> AnyEdit:
    """What is left out stays as it is. From the answer on, this replica answers accordingly."""
    edit = await edits.change(
        services,
        edit_id,
        body.amendment(),
        revisions=_revisions(if_match),
        reason=body.reason,
        actor=asker.actor,
    )
    response.headers["ETag"] = f'"{edit.revision}"'
    return render_edit(edit)


@router.delete(
    "/edits/{edit_id}",
    summary="Retract an edit",
    status_code=204,
    responses=problem_responses(EditNotFound, PreconditionFailed, Invalid, StoreUnavailable, Unavailable),
)
@needs(KeyScope.EDITS_WRITE)
async def retract_edit(
    edit_id: EditId,
    query: Annotated[RetractQuery, Query()],
    services: Door,
    asker: Asker,
    if_match: IfMatch = None,
) -> None:
    """From the answer on, this replica answers as if the edit had never been. Its history stays."""
    await edits.retract(services, edit_id, revisions=_revisions(if_match), reason=query.reason, actor=asker.actor)


def _revisions(if_match: list[str] | None) -> frozenset[int] | None:
    """The revisions that If-Match names; None when any will do (RFC 9110, sec. 13.1.1). Weak tags name none."""
    if if_match is None or [value.strip() for value in if_match] == ["*"]:
        return None
    tags = [match for value in if_match for match in _ENTITY_TAG.finditer(value)]
    return frozenset(int(tag[2]) for tag in tags if not tag[1] and re.fullmatch("[0-9]{1,18}", tag[2]))
