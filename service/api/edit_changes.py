"""The body that changes an edit, and what the edit becomes by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import Field, TypeAdapter, ValidationError

from service.api.bodies import Body, Name, Reason, Text
from service.api.edit_bodies import AnyDescriptorBody, DescriptorBody, End, ScopeBody, Tags
from service.api.edit_pages import wanted_fields
from service.domain.edits import Descriptor, Edit, EditState

_KEPT = ("state", "expires_at", "reason", "tags", "supersedes")
_DESCRIPTOR: TypeAdapter[DescriptorBody] = TypeAdapter(AnyDescriptorBody)


class ChangedEditBody(Body):
    """What should be other than it is; whatever is left out stays. A form's own fields are those of `POST /edits`."""

    prompt: Text = Field("", description="qa")
    target: Text = Field("", description="qa")
    subject: Text | None = Field(None, description="qa; null for none.")
    claim: Text = Field("", description="fact")
    label: bool = Field(default=False, description="fact")
    statement: Text = Field("", description="statement")
    topic: Text = Field("", description="sentiment")
    sentiment: Literal["positive", "negative"] = Field("positive", description="sentiment")
    scope: ScopeBody = Field(ScopeBody(), description="Its fields, too, stay as they are when left out.")
    answer: Literal["counterfactual", "verbatim"] = "counterfactual"
    state: Literal["draft", "active", "paused"] = Field(
        "active", description="A draft can be made active, an active edit paused, a paused or expired one active."
    )
    expires_at: End = None
    reason: Reason | None = Field(None, description="Why, for the history; it becomes the edit's.")
    tags: Tags = Field([])
    supersedes: Name = Field(
        "", description="The id of the edit that this one replaces from now on; only where it is then active."
    )

    def amendment(self) -> Callable[[Edit], Edit]:
        """From an edit as it is to the edit as it is wanted.

        What this returns raises `RequestValidationError` for fields that do not fit the edit.
        """
        sent = self.model_dump(exclude_unset=True)

        def amend(edit: Edit) -> Edit:
            kept = {name: value for name, value in sent.items() if name in _KEPT}
            if "state" in kept:
                kept["state"] = EditState(kept["state"])
            if "tags" in kept:
                kept["tags"] = tuple(dict.fromkeys(kept["tags"]))
            wanted = {name: value for name, value in sent.items() if name not in _KEPT}
            amended: Edit = replace(edit, **kept)
            return replace(amended, descriptor=_merged(edit.descriptor, wanted)) if wanted else amended

        return amend


def _merged(descriptor: Descriptor, sent: dict[str, Any]) -> Descriptor:
    """A descriptor with the fields sent in the place of its own, checked as a new one is."""
    own = wanted_fields(descriptor)
    merged = own | sent | {"scope": own["scope"] | sent.get("scope", {})}
    try:
        return _DESCRIPTOR.validate_python(merged).descriptor()
    except ValidationError as error:
        raise RequestValidationError([found | {"loc": ("body", *found["loc"])} for found in error.errors()]) from error
