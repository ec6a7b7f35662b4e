"""Every endpoint, in the order of the documentation."""

from __future__ import annotations

from fastapi import APIRouter

from service.api import (
    bakes,
    checkpoints,
    edit_files,
    edits,
    evaluations,
    generations,
    health,
    matches,
    metrics,
    openai_generations,
    openai_models,
    previews,
)
from service.api.bodies import JsonRoute, operation_id


def routes() -> APIRouter:
    """A fresh router that holds every endpoint.

    The application puts a `service.actions.services.Services` into its lifespan state under the name `services`.
    """
    router = APIRouter(route_class=JsonRoute, generate_unique_id_function=operation_id)
    # Those with names of their own under /edits come before the ids.
    for door in (
        generations,
        openai_generations,
        openai_models,
        edit_files,
        edits,
        matches,
        previews,
        evaluations,
        bakes,
        checkpoints,
        health,
        metrics,
    ):
        router.include_router(door.router)
    return router
