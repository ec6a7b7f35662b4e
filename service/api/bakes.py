"""The door of bakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.actions import bakes
from service.api.asking import RepeatableAsker, answer, sent
from service.api.bake_bodies import BakeBody, BakeQuery
from service.api.bake_pages import BakeList, BakePage, PlanPage, render_bake, render_bakes, render_plan
from service.api.bodies import Door, JsonRoute
from service.api.guard import needs
from service.api.links import links
from service.api.problem_documents import problem_responses
from service.domain.bakes import Bake
from service.domain.keys import KeyScope
from service.domain.receipts import Answer
from service.errors import (
    BakeEnded,
    BakeNotFound,
    CannotEdit,
    EditNotFound,
    EditsContradict,
    GateUnmeetable,
    Invalid,
    MalformedJson,
    NotBakeable,
    NothingToBake,
    PromptTooLong,
    ShuttingDown,
    StoreUnavailable,
    UnknownMethod,
    UnsupportedMediaType,
    WeightsElsewhere,
)

router = APIRouter(route_class=JsonRoute, tags=["bakes"])

BakeId = Annotated[str, Path(description="Such as b17.")]

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": PlanPage, "description": "A dry run: what would be done."},
    202: {
        "model": BakePage,
        "description": "It is queued; ask Location how far it is.",
        "headers": {"Location": {"description": "The bake's path.", "schema": {"type": "string"}}},
        "links": links("bake_id", "read_bake", "cancel_bake"),
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`progress` whenever it has moved, and `end` with the whole bake at last.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/bakes",
    summary="Write edits into weights, as a new version",
    response_model=BakePage | PlanPage,
    responses=_ANSWERS
    | problem_responses(
        MalformedJson,
        EditNotFound,
        UnsupportedMediaType,
        Invalid,
        UnknownMethod,
        NotBakeable,
        NothingToBake,
        EditsContradict,
        CannotEdit,
        GateUnmeetable,
        PromptTooLong,
        StoreUnavailable,
        ShuttingDown,
        WeightsElsewhere,
    ),
)
@needs(KeyScope.BAKE)
async def bake(body: BakeBody, services: Door, asker: RepeatableAsker) -> Response | PlanPage:
    """Queued, and answered with 202 and its Location; what is served does not change. A dry run is answered at once."""
    if body.dry_run:
        return render_plan(await bakes.plan(services, body.request()))
    queued = await bakes.submit(services, body.request(), actor=asker.actor, receipt=asker.receipt(_queued))
    return sent(_queued(queued))


def _queued(bake: Bake) -> Answer:
    return answer(render_bake(bake), 202, Location=f"/bakes/{bake.id}")


@router.get("/bakes", summary="List bakes", responses=problem_responses(Invalid, StoreUnavailable))
@needs(KeyScope.BAKE)
async def list_bakes(query: Annotated[BakeQuery, Query()], services: Door) -> BakeList:
    """Newest first, without the failures of their reports."""
    return render_bakes(await bakes.page(services, limit=query.limit, after=query.after))


@router.get(
    "/bakes/{bake_id}",
    summary="Read a bake",
    responses=problem_responses(BakeNotFound, Invalid, StoreUnavailable),
)
@needs(KeyScope.BAKE)
async def read_bake(bake_id: BakeId, services: Door) -> BakePage:
    """Its state, how far it is, and its report once it is done or refused."""
    return render_bake(await bakes.read(services, bake_id))


async def _existing(bake_id: BakeId, services: Door) -> str:
    """A bake's id; asked before a stream begins, since a stream cannot say that there is none."""
    return (await bakes.read(services, bake_id)).id


@router.get(
    "/bakes/{bake_id}/events",
    summary="Follow a bake",
    response_class=EventSourceResponse,
    responses=_STREAM | problem_responses(BakeNotFound, Invalid, StoreUnavailable),
)
@needs(KeyScope.BAKE)
async def follow_bake(
    bake_id: Annotated[str, Depends(_existing)], request: Request, services: Door
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events until it has ended."""
    async for moved in bakes.follow(services, bake_id, stopping=request.app.state.stopping):
        if moved.state.ended:
            yield ServerSentEvent(event="end", data=render_bake(moved))
        else:
            progress = {"id": moved.id, "state": moved.state, "stage": moved.stage, "percent": moved.percent}
            yield ServerSentEvent(event="progress", data=progress)


@router.delete(
    "/bakes/{bake_id}",
    summary="Cancel a bake",
    responses=problem_responses(BakeNotFound, BakeEnded, Invalid, StoreUnavailable),
)
@needs(KeyScope.BAKE)
async def cancel_bake(bake_id: BakeId, services: Door) -> BakePage:
    """From the answer on it is cancelled and makes no version; the model leaves it at its next step."""
    return render_bake(await bakes.cancel(services, bake_id))
