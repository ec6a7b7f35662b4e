"""Who asks, and whether it may be for the second time: the signature of a change, and its Idempotency-Key.

An endpoint that writes takes an `Asker`, which signs. A POST that writes takes a `RepeatableAsker` in its place, gives
its action `asker.receipt(render)`, and answers `sent(render(fact))`: a repeat with the same key then changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, TypeVar

from fastapi import Depends, FastAPI, Header, Request, Response
from pydantic import BaseModel

from service.actions import receipts
from service.api.bodies import Door
from service.domain.receipts import AlreadyAnswered, Answer, Claim, ReceiptFor

T = TypeVar("T")

REPLAYED = "Idempotency-Replayed"


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks.

    Attributes:
        actor: Signs what is changed.
        claim: Of a request that may be repeated.
    """

    actor: str
    claim: Claim | None = None

    def receipt(self, render: Callable[[T], Answer]) -> ReceiptFor[T] | None:
        """What the action keeps with the fact that it makes; None when there was no key."""
        return None if self.claim is None else ReceiptFor(self.claim, render)


def answer(page: BaseModel, status: int, **headers: str) -> Answer:
    """A page as it is sent, and kept."""
    return Answer(status=status, body=page.model_dump_json().encode(), headers=headers)


def sent(what: Answer) -> Response:
    """An answer on the wire."""
    return Response(what.body, status_code=what.status, headers=what.headers, media_type="application/json")


def install(app: FastAPI) -> None:
    """Make `app` answer a repeated request as it was answered the first time."""
    app.add_exception_handler(AlreadyAnswered, _again)


async def _again(request: Request, error: Exception) -> Response:
    assert isinstance(error, AlreadyAnswered)
    await receipts.installed(request.state.services)
    response = sent(error.answer)
    response.headers[REPLAYED] = "true"
    return response


def _asker(request: Request) -> Asking:
    return Asking(request.state.caller.actor)


async def _repeatable(
    request: Request,
    services: Door,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            pattern="^[ -~]+$",
            description="Send the same with a repeat, and nothing is done twice.",
        ),
    ] = None,
) -> Asking:
    actor = request.state.caller.actor
    if key is None:
        return Asking(actor)
    body = await request.body()
    asked = b"?".join((request.scope["path"].encode(), request.scope["query_string"]))
    digest = sha256(asked + b"\n" + body).digest()
    claim = Claim(actor=actor, path=request.scope["route"].path, key=key, digest=digest)
    known = await receipts.answered(services, claim)
    if known is not None:
        raise AlreadyAnswered(known)
    return Asking(actor, claim)


Asker = Annotated[Asking, Depends(_asker)]
RepeatableAsker = Annotated[Asking, Depends(_repeatable)]
