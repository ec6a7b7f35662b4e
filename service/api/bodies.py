"""What every request body obeys: declared as JSON, no unknown field, no silent conversion, text that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.actions.services import Services
from service.api.guard import document, refused
from service.errors import UnsupportedMediaType

LONGEST_TEXT = 32_768
"""Characters of one text. The model's own limit, in tokens, is checked where the model is."""


class JsonRoute(APIRoute):
    """A route that refuses, before anything is read, who lacks its scope, and a body that is not declared as JSON."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **document(path, endpoint, options))

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler of the route."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if (refusal := refused(request, self.endpoint)) is not None:
                return refusal
            if self.body_field is not None:
                _require_json(request)
            return await handle(request)

        return checked


class Body(BaseModel):
    """Base of every request body."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def operation_id(route: APIRoute) -> str:
    """The name of an operation in the OpenAPI document: its function's."""
    return route.name


def _services(request: Request) -> Services:
    services = request.state.services
    assert isinstance(services, Services)
    return services


Door = Annotated[Services, Depends(_services)]
"""The services, as an argument of an endpoint."""


def _require_json(request: Request) -> None:
    declared = request.headers.get("content-type", "")
    kind = declared.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType(f"The body is declared as {kind}." if kind else "The request has no JSON body.")


def _storable(text: str) -> str:
    """Refuse what PostgreSQL cannot hold; half a surrogate pair is refused already by the limit on length."""
    if "\0" in text:
        raise PydanticCustomError("nul_character", "must not contain the NUL character")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_storable), AfterValidator(_not_blank)]
"""Text that says something, kept exactly as sent."""
Tag = Annotated[str, Field(max_length=128), AfterValidator(_storable), AfterValidator(_not_blank)]
Reason = Annotated[str, Field(max_length=2_000), AfterValidator(_storable), AfterValidator(_not_blank)]
Words = Annotated[str, Field(max_length=2_000), AfterValidator(_storable), AfterValidator(_not_blank)]
"""What to search for. It stands in a URL, of which a server reads 64 KiB; a character takes up to 12 bytes there."""
Name = Annotated[str, Field(max_length=64), AfterValidator(_storable), AfterValidator(_not_blank)]
"""The id of an edit or the name of a version."""
StopString = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_storable)]
"""May be blank: a newline is the most useful of all."""
