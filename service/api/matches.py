"""The door of matches."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.actions import matches
from service.api.bodies import Body, Door, JsonRoute, Text
from service.api.guard import needs
from service.api.problem_documents import problem_responses
from service.domain.keys import KeyScope
from service.domain.matches import Decision
from service.errors import Invalid, MalformedJson, ShuttingDown, UnsupportedMediaType, VersionUnavailable

router = APIRouter(route_class=JsonRoute, tags=["edits"])


class MatchBody(Body):
    """The prompts to decide on."""

    prompts: list[Text] = Field(min_length=1, max_length=256)


class CandidatePage(BaseModel):
    """An edit that was considered."""

    edit_id: str
    beta: float = Field(description="Probability that the prompt is in its scope.")
    threshold: float = Field(description="Beta at or above which it answers.")
    similarity: float = Field(description="Cosine between the prompt and `matched_text`.")
    matched_text: str = Field(description="The in-scope text of the edit nearest to the prompt.")
    excluded: bool = Field(description="Whether an out-of-scope example of the edit is nearer still.")


class MatchPage(BaseModel):
    """The decision for one prompt; beta and threshold are the best candidate's."""

    edit_id: str | None = Field(description="The edit that answers, if one does.")
    beta: float | None
    threshold: float | None
    decision: Decision
    candidates: list[CandidatePage] = Field(description="Best first.")


class MatchList(BaseModel):
    """The decisions, in the order of the prompts."""

    matches: list[MatchPage]
    revision: int = Field(description="Of the memory that decided.")
    version: str = Field(description="The active version; the edits in its weights are left to them.")


@router.post(
    "/edits/match",
    summary="Say which edits would answer, and why",
    responses=problem_responses(MalformedJson, UnsupportedMediaType, Invalid, VersionUnavailable, ShuttingDown),
)
@needs(KeyScope.GENERATE)
async def match_edits(body: MatchBody, services: Door) -> MatchList:
    """The decision that /generate would take for each prompt; nothing is generated."""
    found = await matches.match(services, tuple(body.prompts))
    return MatchList(
        matches=[MatchPage.model_validate(match, from_attributes=True) for match in found],
        revision=min(match.revision for match in found),
        version=found[0].version,
    )
