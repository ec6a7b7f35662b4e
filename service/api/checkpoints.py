"""The door of checkpoints: the versions of the model."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from service.actions import checkpoints
from service.api.asking import RepeatableAsker, answer, sent
from service.api.bake_bodies import ActivateBody, RollbackBody, VersionQuery
from service.api.bake_pages import (
    ServingPage,
    VersionList,
    VersionPage,
    render_serving,
    render_version,
    render_versions,
)
from service.api.bodies import Door, JsonRoute
from service.api.guard import needs
from service.api.links import links
from service.api.problem_documents import problem_responses
from service.api.tar import TarResponse
from service.domain.keys import KeyScope
from service.domain.receipts import Answer
from service.domain.serving import Serving
from service.domain.versions import ExportFormat
from service.errors import (
    UPSTREAM,
    ArtifactDamaged,
    ArtifactsUnavailable,
    BaseMismatch,
    Invalid,
    MalformedJson,
    NoAdapter,
    NothingToExport,
    NothingToRollBack,
    ShuttingDown,
    StorageFull,
    StoreUnavailable,
    Unavailable,
    UnsupportedMediaType,
    VersionActive,
    VersionNotFound,
    WeightsElsewhere,
)

router = APIRouter(route_class=JsonRoute, tags=["checkpoints"])

VersionId = Annotated[str, Path(description="Such as v3.")]

_MOVING = (
    MalformedJson,
    BaseMismatch,
    WeightsElsewhere,
    NoAdapter,
    UnsupportedMediaType,
    Invalid,
    StoreUnavailable,
    ArtifactsUnavailable,
    Unavailable,
    ShuttingDown,
    *UPSTREAM,
    StorageFull,
    ArtifactDamaged,
)
"""What can be wrong whenever another version is to answer: it is loaded first, then committed, then installed."""
_LISTED: dict[int | str, dict[str, Any]] = {
    200: {"links": links("version_id", "read_version", "activate_version", "export_version", pointer="/data/0/id")}
}
_TAR: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The files of the export.",
        "content": {TarResponse.media_type: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get(
    "/checkpoints",
    summary="List the versions of the model",
    responses=_LISTED | problem_responses(Invalid, StoreUnavailable, ShuttingDown),
)
@needs(KeyScope.BAKE)
async def list_versions(query: Annotated[VersionQuery, Query()], services: Door) -> VersionList:
    """Newest first, without the failures of their reports; v0, the base, is always the last."""
    return render_versions(await checkpoints.page(services, limit=query.limit, after=query.after))


@router.get(
    "/checkpoints/{version_id}",
    summary="Read a version",
    responses=problem_responses(VersionNotFound, Invalid, StoreUnavailable, ArtifactsUnavailable, ShuttingDown),
)
@needs(KeyScope.BAKE)
async def read_version(version_id: VersionId, services: Door) -> VersionPage:
    """What is in it, how it was made and what was measured; its weights are verified on the way."""
    return render_version(await checkpoints.read(services, version_id))


@router.post(
    "/checkpoints/{version_id}/activate",
    summary="Serve a version",
    response_model=ServingPage,
    responses=problem_responses(VersionNotFound, VersionActive, *_MOVING),
)
@needs(KeyScope.BAKE)
async def activate_version(
    version_id: VersionId, body: ActivateBody, services: Door, asker: RepeatableAsker
) -> Response:
    """From the answer on, this replica serves it; the others follow. Answers that are being written keep theirs."""
    serving = await checkpoints.activate(
        services,
        version_id,
        percent=body.percent,
        reason=body.reason,
        actor=asker.actor,
        receipt=asker.receipt(_served),
    )
    return sent(_served(serving))


@router.post(
    "/checkpoints/rollback",
    summary="Undo the newest activation",
    response_model=ServingPage,
    responses=problem_responses(NothingToRollBack, *_MOVING),
)
@needs(KeyScope.BAKE)
async def roll_back(body: RollbackBody, services: Door, asker: RepeatableAsker) -> Response:
    """A canary is taken out; without one, the version before the active one answers again."""
    serving = await checkpoints.roll_back(
        services, reason=body.reason, actor=asker.actor, receipt=asker.receipt(_served)
    )
    return sent(_served(serving))


def _served(serving: Serving) -> Answer:
    return answer(render_serving(serving), 200)


@router.get(
    "/checkpoints/{version_id}/export",
    summary="Export a version",
    status_code=200,  # the response's own class does not say it
    response_class=TarResponse,
    responses=_TAR
    | problem_responses(
        VersionNotFound,
        BaseMismatch,
        WeightsElsewhere,
        Invalid,
        NothingToExport,
        StoreUnavailable,
        ArtifactsUnavailable,
        ShuttingDown,
        StorageFull,
        ArtifactDamaged,
    ),
)
@needs(KeyScope.BAKE)
async def export_version(
    version_id: VersionId,
    services: Door,
    kind: Annotated[
        ExportFormat, Query(alias="format", description="A LoRA adapter for PEFT, or a Hugging Face checkpoint.")
    ] = ExportFormat.PEFT,
) -> TarResponse:
    """A tar archive with a model card, and what PEFT or `AutoModelForCausalLM` loads."""
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(checkpoints.export(services, version_id, kind))
        closing = stack.pop_all()
    return TarResponse(folder, f"{version_id}-{kind}", closing=closing)
