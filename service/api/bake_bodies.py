"""The bodies and parameters that describe bakes and versions, and what they become in the domain."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.bodies import Body, Name, Reason
from service.api.choices import ChosenEdits
from service.domain.bakes import BakeRequest, Gate

_LARGEST = 2**63 - 1
_DEFAULT = Gate()


class GateBody(Body):
    """What a version must keep to, or there is none."""

    edit_success: float = Field(
        _DEFAULT.edit_success,
        ge=0,
        le=1,
        description="Least share of the edits' prompts and examples answered by them.",
    )
    drawdown: float = Field(
        _DEFAULT.drawdown, ge=0, le=1, description="Most share of unrelated questions whose answer may change."
    )
    relative_norm: float = Field(
        _DEFAULT.relative_norm, gt=0, description="Most that a weight may change, in Frobenius norms, against its own."
    )
    max_new_tokens: int = Field(_DEFAULT.max_new_tokens, ge=1, le=1024, description="Of each answer.")

    def gate(self) -> Gate:
        """In the domain's words."""
        return Gate(
            edit_success=self.edit_success,
            drawdown=self.drawdown,
            relative_norm=self.relative_norm,
            max_new_tokens=self.max_new_tokens,
        )


class BakeBody(Body):
    """What to bake, and how."""

    method: Name = Field(description="A weight editor: rome, mend or fine_tuning.")
    edits: ChosenEdits = Field(["active"], description="`active` for all edits in force, or the ids of some.")
    config: dict[str, Any] = Field({}, description="The method's settings; what is left out takes its default.")
    gate: GateBody = GateBody()
    seed: int = Field(0, ge=0, le=_LARGEST, description="Draws the unrelated questions.")
    dry_run: bool = Field(False, description="Say what would be done, and do nothing.")  # noqa: FBT003 - a default

    def request(self) -> BakeRequest:
        """In the domain's words."""
        return BakeRequest(
            method=self.method, edits=tuple(self.edits), config=self.config, gate=self.gate.gate(), seed=self.seed
        )


class BakeQuery(BaseModel):
    """Which bakes to list, newest first."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200)
    after: str | None = Field(None, pattern="^b[1-9][0-9]{0,17}$", description="The `next` of the page before.")


class ActivateBody(Body):
    """How much a version is to answer."""

    percent: int = Field(100, ge=1, le=100, description="Of the questions; below 100 it is the canary.")
    reason: Reason | None = None


class RollbackBody(Body):
    """What can be said of a rollback."""

    reason: Reason | None = None


class VersionQuery(BaseModel):
    """Which versions to list, newest first."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200)
    after: str | None = Field(None, pattern="^v(0|[1-9][0-9]{0,17})$", description="The `next` of the page before.")
