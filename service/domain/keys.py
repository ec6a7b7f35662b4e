"""API keys: who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Protocol


class KeyScope(StrEnum):
    """What a key lets its holder do."""

    GENERATE = "generate"
    """Ask the model, and ask which edit would answer."""
    EDITS_READ = "edits:read"
    """Read edits and their history."""
    EDITS_WRITE = "edits:write"
    """Add and retract edits."""
    EVAL = "eval"
    """Run evaluations, read and cancel them."""
    BAKE = "bake"
    """Bake, and read, export and serve versions."""
    ADMIN = "admin"
    """Everything, now and later."""


ANONYMOUS = "anonymous"
"""Who signs what is asked for while the service has no keys."""
OURSELVES = "errata"
"""Who signs what the service does by itself."""
RESERVED = frozenset({ANONYMOUS, OURSELVES})
"""Names that no key may have, since they sign in the place of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key to be kept.

    Attributes:
        name: Signs what its holder changes, so no two keys ever have the same, revoked ones included.
        scopes: May be empty: such a key opens what needs a key and no scope.
        digest: Of its secret, as `digest` makes it; the secret itself is not kept.
    """

    name: str
    scopes: frozenset[KeyScope]
    digest: bytes
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is kept.

    Attributes:
        id: Such as `k3`. It is part of the token, so a token that is found somewhere says which key to revoke.
    """

    id: str
    name: str
    scopes: frozenset[KeyScope]
    digest: bytes
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def holds_at(self, now: datetime) -> bool:
        """Whether it opens anything then."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request.

    Attributes:
        actor: The name of the key, or `anonymous`; signs the changes.
    """

    actor: str
    scopes: frozenset[KeyScope]

    def may(self, scope: KeyScope) -> bool:
        """Whether the scope is among the caller's; `admin` contains every other."""
        return scope in self.scopes or KeyScope.ADMIN in self.scopes


ANYONE = Caller(actor=ANONYMOUS, scopes=frozenset({KeyScope.ADMIN}))
"""The caller of a service without keys."""


def digest(secret: str) -> bytes:
    """SHA-256. A secret has 256 random bits, so neither a salt nor a slow hash would make it harder to find."""
    return sha256(secret.encode()).digest()


class Keyring(Protocol):
    """The keys as this replica knows them."""

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        ...

    def caller(self, token: str) -> Caller | None:
        """Whose token this is; None when it opens nothing."""
        ...


class NoKeys:
    """The keyring of a service on which no key was ever made."""

    required = False

    def caller(self, token: str) -> Caller | None:
        """Nobody's."""
        return None


class KeyReader(Protocol):
    """Reads keys within one transaction."""

    async def all(self) -> tuple[ApiKey, ...]:
        """Every key that was ever made, oldest first."""
        ...


class KeyWriter(KeyReader, Protocol):
    """Makes and revokes keys within one transaction. They alter no answer, so they take no revision."""

    async def add(self, new: NewKey) -> ApiKey:
        """Keep a key.

        Raises:
            KeyNameTaken: Another has, or had, its name.
        """
        ...

    async def revoke(self, key_id: str) -> ApiKey | None:
        """End a key; as it then is, or None when there is no such key. One that was revoked stays as it is."""
        ...
