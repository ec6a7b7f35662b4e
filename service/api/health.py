"""The doors of health: is it alive, can it serve, what does it serve."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service import __version__
from service.actions import health
from service.api.bodies import Door, JsonRoute
from service.api.guard import needs
from service.api.problem_documents import problem_responses
from service.errors import NotReady, ShuttingDown

router = APIRouter(route_class=JsonRoute, tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ChecksPage(BaseModel):
    """Each `ok`, or the reason why not."""

    database: str
    migration: str
    model: str
    memory: str
    version: str


class Ready(BaseModel):
    """Every check is ok."""

    status: Literal["ok"] = "ok"
    checks: ChecksPage


class Info(BaseModel):
    """What is being served."""

    errata: str = Field(description="The version of Errata.")
    model: str
    upstream: str | None = Field(description="The server that holds the base model; null where it is held here.")
    architecture: str | None = Field(description="Null where the base is elsewhere, as are the next three.")
    parameters: int | None
    device: str | None
    dtype: str | None
    context_length: int | None = Field(description="In tokens; null where the base's server does not say.")
    version: str = Field(description="The active version of the weights.")
    canary: str | None = Field(description="The version that answers a share of the questions in its place.")
    percent: int = Field(description="That share.")
    problem: str | None = Field(description="Why this replica cannot serve what it should; null when it does.")
    failure: str | None = Field(description="Why the model does not answer now; null when it does.")
    revision: int = Field(description="The newest change in force here.")
    edits: int = Field(description="Edits in force here.")
    baked: int = Field(description="How many of them the active version answers from its weights, not the memory.")
    memory: dict[str, Any]


@router.get("/livez", summary="Is the process alive", responses=problem_responses())
async def livez() -> Alive:
    """Restart the process when this does not answer."""
    return Alive()


@router.get("/readyz", summary="Can it serve", responses=problem_responses(NotReady, ShuttingDown))
async def readyz(request: Request, services: Door) -> Ready:
    """Send traffic when this answers 200. A 503 says what is missing, in `checks`, or that it is stopping."""
    if request.app.state.stopping.is_set():
        raise ShuttingDown("The service is stopping: send it nothing new.")
    return Ready(checks=ChecksPage.model_validate(asdict(await health.ready(services))))


@router.get("/info", summary="What is served", responses=problem_responses())
@needs(None)
async def info(services: Door) -> Info:
    """The model, its version, and the memory."""
    return Info(errata=__version__, **asdict(health.info(services)))
