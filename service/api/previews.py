"""The door of previews."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.actions import previews
from service.api.bodies import Body, Door, JsonRoute, Text
from service.api.edit_bodies import NewEditBody
from service.api.guard import needs
from service.api.problem_documents import problem_responses
from service.domain.generations import FinishReason, Generation, Sampling, Source
from service.domain.keys import KeyScope
from service.domain.previews import MOST_PROBES, Preview
from service.errors import (
    UPSTREAM,
    EditNotFound,
    EditTooLong,
    EngineFailed,
    Invalid,
    MalformedJson,
    PromptTooLong,
    QueueFull,
    RateLimited,
    ShuttingDown,
    StoreUnavailable,
    UnsupportedMediaType,
)

router = APIRouter(route_class=JsonRoute, tags=["edits"])


class PreviewBody(Body):
    """An edit, and what to ask."""

    edit: NewEditBody = Field(description="As POST /edits takes it; a draft is previewed as if it were active.")
    probes: list[Text] = Field(
        [],
        max_length=MOST_PROBES,
        description="Prompts; the edit's own and the examples of its scope when left out.",
    )
    max_new_tokens: int = Field(32, ge=1, le=1024)


class AnswerPage(BaseModel):
    """What /generate answers."""

    text: str
    source: Source
    edit_id: str | None = Field(description="The edit that answers, if one does; `preview` is the one previewed.")
    beta: float | None = Field(description="The highest probability that the prompt is in the scope of an edit.")
    finish_reason: FinishReason


class ProbePage(BaseModel):
    """A probe, and its answers before and after."""

    prompt: str
    changed: bool = Field(description="Whether the text of the answer differs.")
    beta: float | None = Field(
        description="Probability that it is in the scope of the edit; null when others are nearer."
    )
    before: AnswerPage
    after: AnswerPage


class InTheWayPage(BaseModel):
    """An edit for which POST /edits would refuse this one."""

    edit_id: str
    target: str


class PreviewPage(BaseModel):
    """What the edit would change."""

    conflicts: list[InTheWayPage] = Field(description="The answers after are those with the edit in their place.")
    probes: list[ProbePage]
    version: str
    revision: int = Field(description="Of the memory that decided.")


@router.post(
    "/edits/preview",
    summary="Say what an edit would change",
    responses=problem_responses(
        MalformedJson,
        EditNotFound,
        UnsupportedMediaType,
        Invalid,
        EditTooLong,
        PromptTooLong,
        QueueFull,
        RateLimited,
        EngineFailed,
        StoreUnavailable,
        ShuttingDown,
        *UPSTREAM,
    ),
)
@needs(KeyScope.EDITS_READ)
async def preview_edit(body: PreviewBody, services: Door) -> PreviewPage:
    """The answers after are those of /generate once the edit is posted. Nothing is kept."""
    new = body.edit.new_edit()
    probes = tuple(body.probes) or new.descriptor.texts
    sampling = Sampling(max_new_tokens=body.max_new_tokens)
    return _render(await previews.preview(services, new, probes, sampling))


def _render(preview: Preview) -> PreviewPage:
    before = preview.probes[0].before
    conflict = preview.conflict
    return PreviewPage(
        conflicts=[] if conflict is None else [InTheWayPage(edit_id=conflict.id, target=conflict.descriptor.target)],
        probes=[
            ProbePage(
                prompt=probed.prompt,
                changed=probed.before.text != probed.after.text,
                beta=probed.beta,
                before=_answer(probed.before),
                after=_answer(probed.after),
            )
            for probed in preview.probes
        ],
        version=before.version,
        revision=before.revision,
    )


def _answer(generation: Generation) -> AnswerPage:
    return AnswerPage.model_validate(generation, from_attributes=True)
