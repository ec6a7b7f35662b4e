"""A base elsewhere, as the settings name it, and what stands in for the baker there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from service.domain.bake_plans import BakeProgress, LeftOut
from service.domain.bakes import BakeRequest
from service.domain.edits import Edit
from service.domain.versions import Base, ExportFormat, Version
from service.errors import StartupError, WeightsElsewhere
from service.runtime.adapters import Adapters
from service.runtime.line import Line
from service.runtime.upstream import UpstreamEngine
from service.settings import Settings


def upstream_of(settings: Settings) -> UpstreamEngine | None:
    """The engine on the server that the settings name; None where the base is loaded here.

    Raises:
        StartupError: They cannot be the address, the key or the model of one.
    """
    if not settings.base_url:
        return None
    _refuse_address(settings.base_url)
    key = settings.base_api_key.strip()
    if not (key.isascii() and key.isprintable()):
        raise StartupError(
            "ERRATA_BASE_API_KEY holds characters that no key has.", hint="Copy it again, without a line's end in it."
        )
    if not settings.base_model:
        raise StartupError(
            "ERRATA_BASE_URL is set, and ERRATA_BASE_MODEL does not say which model to ask for there.",
            hint="Set it to a name that GET /v1/models lists on that server; an Errata takes `active`.",
        )
    return UpstreamEngine(
        settings.base_url,
        model=settings.base_model,
        key=key,
        timeout_seconds=settings.base_timeout_seconds,
        connect_seconds=settings.base_connect_seconds,
        line=Line(running=settings.batch, waiting=settings.queue),
    )


def _refuse_address(url: str) -> None:
    """Check that a URL can be a server's.

    Raises:
        StartupError: It cannot; a password that it may hold is not repeated.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise StartupError(
            "ERRATA_BASE_URL is no address of a server.", hint="Write it as http://HOST:PORT/v1, or https://HOST/v1."
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise StartupError(
            "ERRATA_BASE_URL holds more than an address.", hint="Put the key into ERRATA_BASE_API_KEY; end with /v1."
        )


def adapters_of(settings: Settings, server: UpstreamEngine | None) -> Adapters | None:
    """How the server that holds the base is given versions; None where the settings give it none.

    Raises:
        StartupError: They say only half of it, or the folder cannot be made.
    """
    if settings.adapters is None:
        return None
    if server is None or not settings.base_fingerprint:
        raise StartupError(
            "ERRATA_ADAPTERS is for a base on another server, whose weights somebody must name.",
            hint="Set ERRATA_BASE_URL, and ERRATA_BASE_FINGERPRINT to what GET /checkpoints/v0 says where they are "
            "loaded.",
        )
    folder = settings.adapters.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(
            f"ERRATA_ADAPTERS cannot be used: {error.strerror}: {folder}.", hint="Name a folder that can be written."
        ) from error
    return Adapters(server, folder, settings.base_fingerprint)


class NoBaker:
    """Implements `service.domain.bake_plans.Baker` for a base without weights here.

    Args:
        name: The model's name on its server.
        fingerprint: Of the weights that it is said to hold; empty where nobody says.
    """

    def __init__(self, name: str, fingerprint: str = "") -> None:
        self._name = name
        self._fingerprint = fingerprint

    def close(self) -> None:
        """Nothing to end."""

    async def base(self) -> Base:
        """The base, whose tensors nobody here can read."""
        return Base(name=self._name, fingerprint=self._fingerprint)

    async def plan(self, request: BakeRequest, edits: Sequence[Edit], left_out: Sequence[LeftOut]) -> NoReturn:
        """Refuse; see `bake`."""
        self._refuse("Edits cannot be baked here")

    async def bake(
        self, request: BakeRequest, edits: Sequence[Edit], file: Path, *, progress: BakeProgress
    ) -> NoReturn:
        """Refuse.

        Raises:
            WeightsElsewhere: Always.
        """
        self._refuse("Edits cannot be baked here")

    async def export(self, version: Version, file: Path, kind: ExportFormat, folder: Path) -> NoReturn:
        """Refuse; see `bake`."""
        self._refuse(f"{version.id} cannot be exported here")

    def _refuse(self, what: str) -> NoReturn:
        raise WeightsElsewhere(f"{what}: the weights of {self._name} are on another server.")
