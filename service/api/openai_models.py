"""The door of OpenAI's models: the versions, and the names that stand for the one that answers."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from service.actions import models
from service.actions.models import Model
from service.api.bodies import Door, JsonRoute
from service.api.guard import needs
from service.api.openai_errors import error_responses
from service.domain.keys import KeyScope
from service.errors import Invalid, ShuttingDown, StoreUnavailable, VersionNotFound

router = APIRouter(route_class=JsonRoute, tags=["openai"])


class ModelPage(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since 1970; 0 for the base, which nobody made here.")
    owned_by: Literal["errata"] = "errata"
    parent: str | None = Field(description="Of a version, its parent; of an alias, the version that it stands for.")


class ModelList(BaseModel):
    """Every model."""

    object: Literal["list"] = "list"
    data: list[ModelPage]


@router.get("/v1/models", summary="List the models", responses=error_responses(StoreUnavailable, ShuttingDown))
@needs(KeyScope.GENERATE)
async def list_models(services: Door) -> ModelList:
    """The alias `active` and the base's own name first, then the versions, newest first."""
    return ModelList(data=[_render(model) for model in await models.every(services)])


@router.get(
    "/v1/models/{model:path}",  # the id of a model of the Hub holds a slash
    summary="Read a model",
    responses=error_responses(VersionNotFound, Invalid, StoreUnavailable, ShuttingDown),
)
@needs(KeyScope.GENERATE)
async def read_model(model: Annotated[str, Path(description="Such as active, or v3.")], services: Door) -> ModelPage:
    """A version, or a name that stands for the one that answers."""
    return _render(await models.read(services, model))


def _render(model: Model) -> ModelPage:
    created = 0 if model.created_at is None else int(model.created_at.timestamp())
    return ModelPage(id=model.name, created=created, parent=model.parent)
