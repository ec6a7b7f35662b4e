"""API keys: create, list, revoke. Whoever holds the database holds the keys, so there is no door for this."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from service.domain.keys import RESERVED, ApiKey, KeyScope, NewKey, digest
from service.domain.ports import Store
from service.errors import FieldError, Invalid, KeyNameTaken, KeyNotFound

LONGEST_NAME = 64
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Made:
    """A new key, and its token, which is shown once and kept nowhere."""

    key: ApiKey
    token: str


async def create(store: Store, name: str, scopes: Iterable[KeyScope], *, expires_at: datetime | None) -> Made:
    """Make a key.

    Raises:
        Invalid: The name is blank, too long, or signs for somebody else.
        KeyNameTaken: A key has it, or had it.
    """
    _check(name)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    new = NewKey(name=name, scopes=frozenset(scopes), digest=digest(secret), expires_at=expires_at)
    try:
        async with store.recording() as recording:
            key = await recording.keys.add(new)
    except KeyNameTaken as error:
        raise KeyNameTaken(f"An API key has, or had, the name {name!r}.") from error
    return Made(key, f"errata_{key.id}_{secret}")


async def every(store: Store) -> tuple[ApiKey, ...]:
    """Every key that was ever made, oldest first."""
    async with store.reading() as reading:
        return await reading.keys.all()


async def revoke(store: Store, key_id: str) -> ApiKey:
    """End a key: no replica takes it a second later.

    Raises:
        KeyNotFound: There is none of that id.
    """
    async with store.recording() as recording:
        key = await recording.keys.revoke(key_id)
    if key is None:
        raise KeyNotFound(f"There is no API key {key_id}.")
    return key


def _check(name: str) -> None:
    if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        raise _refused(f"must be 1 to {LONGEST_NAME} printable characters")
    if name in RESERVED:
        raise _refused(f"must not be {name!r}, which signs what no key has asked for")


def _refused(words: str) -> Invalid:
    return Invalid(
        f"The name of an API key {words}.", hint="Choose another name.", errors=(FieldError("/name", words),)
    )
