"""The live keyring: the API keys as this replica knows them, so that no request waits for the database.

It is read again twice a second, so a key that is revoked on one replica opens nothing on any within a second. While the
database is away it stays as it was: who could ask before can ask still, and nobody new can.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from hmac import compare_digest

import structlog

from service.domain.keys import ApiKey, Caller, digest
from service.domain.ports import Store
from service.errors import ErrataError

SECONDS_BETWEEN_LOOKS = 0.4
_TOKEN = re.compile(r"errata_(k[0-9]{1,18})_([A-Za-z0-9_-]{1,128})")
_log = structlog.get_logger(__name__)


class LiveKeyring:
    """Implements `service.domain.keys.Keyring`.

    Args:
        always: Whether a request needs a key though none was ever made: the service can be reached by others.
    """

    def __init__(self, *, always: bool = False) -> None:
        self._always = always
        self._keys: dict[str, ApiKey] = {}

    @property
    def required(self) -> bool:
        """Whether a request needs a key: it does from the first key that was ever made, revoked or not."""
        return self._always or bool(self._keys)

    @property
    def usable(self) -> bool:
        """Whether any key opens anything now."""
        now = datetime.now(UTC)
        return any(key.holds_at(now) for key in self._keys.values())

    def caller(self, token: str) -> Caller | None:
        """Whose token this is; None when it opens nothing. Compared in constant time."""
        match = _TOKEN.fullmatch(token)
        key = self._keys.get(match[1]) if match else None
        if match is None or key is None or not compare_digest(key.digest, digest(match[2])):
            return None
        if not key.holds_at(datetime.now(UTC)):
            return None
        return Caller(actor=key.name, scopes=key.scopes)

    def hold(self, keys: Iterable[ApiKey]) -> None:
        """Know these keys and no others."""
        self._keys = {key.id: key for key in keys}

    async def look(self, store: Store) -> None:
        """Read every key.

        Raises:
            StoreUnavailable: PostgreSQL does not answer; what was known stays known.
        """
        async with store.reading() as reading:
            self.hold(await reading.keys.all())


async def keep_current(keyring: LiveKeyring, store: Store) -> None:
    """Read the keys again and again, until cancelled; a database that is away is looked for again."""
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        try:
            await keyring.look(store)
        except ErrataError as error:
            _log.warning("cannot read the API keys", detail=error.detail)
        except Exception:
            _log.exception("reading the API keys failed")
