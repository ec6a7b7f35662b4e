"""Models: the names under which OpenAI's clients ask for a version. No SQL where one is only resolved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from service.actions.services import Services
from service.domain.generations import ACTIVE
from service.domain.versions import BASE_VERSION, VERSION_NAME
from service.errors import VersionNotFound

_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A name that can be asked for.

    Attributes:
        created_at: When the version was baked; None of the base, which is nobody's here.
        parent: Of a version, the one that served when its bake was asked for; of an alias, the version that it stands
            for now.
    """

    name: str
    created_at: datetime | None = None
    parent: str | None = None


def version_of(services: Services, model: str) -> str:
    """What a request with this model asks for: `active`, or a version's name.

    The name of the base model stands for `active`: clients of the deployed model go on asking for it by that name, and
    are to get its edits.

    Raises:
        VersionNotFound: It is the name of neither.
    """
    if model == ACTIVE or re.fullmatch(VERSION_NAME, model):
        return model
    if model == services.runtime.info().model:
        return ACTIVE
    raise _unknown(model)


async def every(services: Services) -> tuple[Model, ...]:
    """Every model that can be asked for: the aliases first, then the versions, newest first."""
    async with services.store.reading() as reading:
        serving = await reading.serving.now()
        pages = [await reading.versions.page(limit=_AT_ONCE, after=None)]
        while pages[-1].has_more:
            pages.append(await reading.versions.page(limit=_AT_ONCE, after=pages[-1].data[-1].id))
    versions = {
        version.id: Model(name=version.id, created_at=version.created_at, parent=version.parent)
        for page in pages
        for version in page.data
        if services.runtime.serves(version)
    }
    versions[BASE_VERSION] = Model(name=BASE_VERSION)
    created_at = versions[serving.active].created_at if serving.active in versions else None
    aliases = dict.fromkeys((ACTIVE, services.runtime.info().model))
    standing = (Model(name=name, created_at=created_at, parent=serving.active) for name in aliases)
    return tuple({model.name: model for model in (*standing, *versions.values())}.values())


async def read(services: Services, name: str) -> Model:
    """The model of that name.

    Raises:
        VersionNotFound: There is none.
    """
    found = next((model for model in await every(services) if model.name == name), None)
    if found is None:
        raise _unknown(name)
    return found


def _unknown(name: str) -> VersionNotFound:
    return VersionNotFound(f"The model {name!r} does not exist.")
