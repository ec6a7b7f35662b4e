"""Receipts: what was answered to a request that carried an Idempotency-Key, kept so that a repeat does nothing twice.

A receipt commits in the transaction of the fact that the request caused: either both are there, or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from service.errors import IdempotencyKeyReused

T = TypeVar("T")

KEPT_FOR = timedelta(hours=24)
"""After which a key counts as new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A request that may be repeated.

    Attributes:
        actor: Who sent it, and `path`, where: the same key of another, or elsewhere, is another key.
        digest: Of the query and the body, which make the request the same.
    """

    actor: str
    path: str
    key: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent, and sent again; `body` is JSON."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class AlreadyAnswered(Exception):
    """The fact is there already; its transaction is undone, and what was answered then is answered again."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("answered before")
        self.answer = answer


class Receipt(Protocol):
    """What the store keeps with a fact."""

    @property
    def claim(self) -> Claim:
        """Whose it is."""
        ...

    @property
    def answer(self) -> Answer:
        """What is answered; known once the fact is."""
        ...


class ReceiptFor(Generic[T]):
    """A receipt for a fact of one kind.

    Args:
        claim: Whose it is.
        render: The answer for the fact, as a pure function.
    """

    def __init__(self, claim: Claim, render: Callable[[T], Answer]) -> None:
        self.claim = claim
        self._render = render
        self._answer: Answer | None = None

    def settle(self, fact: T) -> None:
        """Note what came of the request, before its transaction ends."""
        self._answer = self._render(fact)

    @property
    def answer(self) -> Answer:
        """What is answered; it is an error of ours to end the transaction before `settle`."""
        assert self._answer is not None, "a receipt is settled in the transaction that it is given to"
        return self._answer


class ReceiptReader(Protocol):
    """Reads receipts within one transaction."""

    async def answer(self, claim: Claim) -> Answer | None:
        """What was answered to this request; None when it is new, or was forgotten.

        Raises:
            IdempotencyKeyReused: Its key came with another body.
        """
        ...


class ReceiptWriter(Protocol):
    """Forgets receipts. They are kept by `Store.writing` and `Store.recording`, with the fact."""

    async def forget_old(self) -> None:
        """Remove those older than `KEPT_FOR`."""
        ...


def same(claim: Claim, digest: bytes, answer: Answer) -> Answer:
    """The answer kept under the claim's key for a body of that digest, if it is this claim's body.

    Raises:
        IdempotencyKeyReused: It is another's.
    """
    if digest != claim.digest:
        raise IdempotencyKeyReused(f"The Idempotency-Key {claim.key!r} was sent to {claim.path} with another body.")
    return answer
