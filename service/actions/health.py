"""Health: whether this replica can serve, and what it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import structlog

from service.actions.services import Services
from service.domain.answers import Lookups
from service.domain.census import Census
from service.domain.ports import Backlog, RuntimeInfo
from service.errors import ErrataError, NotReady, StoreUnavailable

OK = "ok"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What must hold before traffic is sent here. Each is `ok`, or the reason why not.

    Attributes:
        database: PostgreSQL answers.
        migration: The database is at the migration that the code needs.
        model: The base model is loaded and answers.
        memory: Every committed change is in force here.
        version: The versions that should answer do so here.
    """

    database: str
    migration: str
    model: str
    memory: str
    version: str


async def ready(services: Services) -> Checks:
    """Check everything.

    Raises:
        NotReady: A check failed; its member `checks` says which.
    """
    info, model = _info(services)
    revision, database = await _revision(services)
    checks = Checks(
        database=database,
        migration=await _migration(services) if revision is not None else "unknown: the database does not answer",
        model=model,
        memory=_memory(info, revision),
        version=_version(info),
    )
    failed = [name for name, result in asdict(checks).items() if result != OK]
    if failed:
        raise NotReady(f"Not ready: {', '.join(failed)}.", extra={"checks": asdict(checks)})
    return checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What an operator watches.

    Attributes:
        census: What the database says; None when it does not answer.
        lookups: What came of asking the answer cache, in each of its tiers.
    """

    info: RuntimeInfo
    backlog: Backlog
    census: Census | None
    lookups: Sequence[Lookups]

    @property
    def index_rows(self) -> int:
        """Texts in the live memory's index."""
        return int(self.info.memory["rows"])

    @property
    def database_rows(self) -> int | None:
        """Texts of the edits in force, in the database; as many as in the index when both agree."""
        return None if self.census is None else self.census.vector_bytes // (4 * int(self.info.memory["width"]))


async def vitals(services: Services) -> Vitals:
    """Everything that is measured anew whenever it is asked for."""
    found = None
    try:
        async with services.store.reading() as reading:
            found = await reading.census()
    except StoreUnavailable as error:
        _log.warning("the database cannot be measured", detail=error.detail)
    return Vitals(
        info=services.runtime.info(),
        backlog=services.runtime.backlog(),
        census=found,
        lookups=services.answers.lookups(),
    )


def info(services: Services) -> RuntimeInfo:
    """What is being served now."""
    return services.runtime.info()


def _info(services: Services) -> tuple[RuntimeInfo | None, str]:
    try:
        info = services.runtime.info()
    except ErrataError as error:
        return None, error.detail
    return info, info.failure or OK


async def _revision(services: Services) -> tuple[int | None, str]:
    try:
        async with services.store.reading() as reading:
            return await reading.changes.revision(), OK
    except ErrataError as error:
        return None, error.detail


async def _migration(services: Services) -> str:
    try:
        current, needed = await services.store.migration()
    except ErrataError as error:
        return error.detail
    return OK if current == needed else f"the database is at {current or 'no migration'} and the code needs {needed}"


def _memory(info: RuntimeInfo | None, revision: int | None) -> str:
    if info is None or revision is None:
        return "unknown: the model or the database does not answer"
    return OK if info.revision >= revision else f"at revision {info.revision} of {revision}"


def _version(info: RuntimeInfo | None) -> str:
    return "unknown: the model does not answer" if info is None else info.problem or OK
