"""The door of evaluations."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import HTMLResponse

from service.actions import evaluations
from service.api.asking import RepeatableAsker, answer, sent
from service.api.bodies import Door, JsonRoute
from service.api.evaluation_bodies import EvaluateBody, EvaluationQuery
from service.api.evaluation_pages import EvaluationList, EvaluationPage, render_evaluation, render_page
from service.api.evaluation_report import render
from service.api.guard import needs
from service.api.links import links
from service.api.problem_documents import problem_responses
from service.domain.evaluations import Evaluation, EvaluationState
from service.domain.keys import KeyScope
from service.domain.receipts import Answer
from service.errors import (
    UPSTREAM,
    EditNotFound,
    EditTooLong,
    EvaluationEnded,
    EvaluationNotFound,
    Invalid,
    MalformedJson,
    MetricUnavailable,
    NothingToEvaluate,
    PromptTooLong,
    ShuttingDown,
    StoreUnavailable,
    UnknownMetric,
    UnknownSubject,
    UnknownSuite,
    UnsupportedMediaType,
    WeightsElsewhere,
)

router = APIRouter(route_class=JsonRoute, tags=["evaluations"])

EvaluationId = Annotated[str, Path(description="Such as ev17.")]

_LINKS = links("evaluation_id", "read_evaluation", "read_report", "cancel_evaluation")
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"links": _LINKS},
    202: {
        "model": EvaluationPage,
        "description": "It is queued; ask Location how far it is.",
        "headers": {"Location": {"description": "The evaluation's path.", "schema": {"type": "string"}}},
        "links": _LINKS,
    },
}


@router.post(
    "/eval",
    summary="Measure whether edits work and break nothing",
    response_model=EvaluationPage,
    responses=_ANSWERS
    | problem_responses(
        MalformedJson,
        EditNotFound,
        UnsupportedMediaType,
        Invalid,
        UnknownSuite,
        UnknownMetric,
        UnknownSubject,
        MetricUnavailable,
        NothingToEvaluate,
        EditTooLong,
        PromptTooLong,
        StoreUnavailable,
        ShuttingDown,
        WeightsElsewhere,
        *UPSTREAM,
    ),
)
@needs(KeyScope.EVAL)
async def evaluate(body: EvaluateBody, services: Door, asker: RepeatableAsker) -> Response:
    """Small evaluations are answered at once; larger ones are queued, and answered with 202 and their Location."""
    evaluation = await evaluations.submit(
        services, body.request(), actor=asker.actor, receipt=asker.receipt(_submitted)
    )
    return sent(_submitted(evaluation))


def _submitted(evaluation: Evaluation) -> Answer:
    if evaluation.state is EvaluationState.QUEUED:
        return answer(render_evaluation(evaluation), 202, Location=f"/eval/{evaluation.id}")
    return answer(render_evaluation(evaluation), 200)


@router.get("/eval", summary="List evaluations", responses=problem_responses(Invalid, StoreUnavailable))
@needs(KeyScope.EVAL)
async def list_evaluations(query: Annotated[EvaluationQuery, Query()], services: Door) -> EvaluationList:
    """Newest first, without their cases, failures and betas."""
    return render_page(await evaluations.page(services, limit=query.limit, after=query.after))


@router.get(
    "/eval/{evaluation_id}",
    summary="Read an evaluation",
    responses=problem_responses(EvaluationNotFound, Invalid, StoreUnavailable),
)
@needs(KeyScope.EVAL)
async def read_evaluation(evaluation_id: EvaluationId, services: Door) -> EvaluationPage:
    """Its state, how far it is, and its report once it is done."""
    return render_evaluation(await evaluations.read(services, evaluation_id))


@router.delete(
    "/eval/{evaluation_id}",
    summary="Cancel an evaluation",
    responses=problem_responses(EvaluationNotFound, EvaluationEnded, Invalid, StoreUnavailable),
)
@needs(KeyScope.EVAL)
async def cancel_evaluation(evaluation_id: EvaluationId, services: Door) -> EvaluationPage:
    """From the answer on it is cancelled; the model leaves it at its next step."""
    return render_evaluation(await evaluations.cancel(services, evaluation_id))


@router.get(
    "/eval/{evaluation_id}/report",
    summary="Read the report of an evaluation as a page",
    response_class=HTMLResponse,
    responses=problem_responses(EvaluationNotFound, Invalid, StoreUnavailable),
)
@needs(KeyScope.EVAL)
async def read_report(evaluation_id: EvaluationId, services: Door) -> HTMLResponse:
    """One file of HTML with its plots inside. An evaluation that is not done gets a page that says how it stands."""
    evaluation = await evaluations.read(services, evaluation_id)
    return HTMLResponse(await asyncio.to_thread(render, evaluation))
