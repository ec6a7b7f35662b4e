"""Between bakes and versions as the domain knows them and the values in their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row

from service.domain.artifacts import Artifact
from service.domain.bakes import Bake, BakeReport, BakeRequest, BakeState, Stage
from service.domain.versions import BakedEdit, Base, Version
from service.store._documents import dumped, number_in, utc
from service.store._evaluation_rows import storable_failures

BAKE_PREFIX = "b"
VERSION_PREFIX = "v"

_REQUEST = TypeAdapter(BakeRequest)
_REPORT = TypeAdapter(BakeReport)
_CONFIG = TypeAdapter(dict[str, Any])
_EDITS = TypeAdapter(tuple[BakedEdit, ...])


def request_document(request: BakeRequest) -> str:
    """A request as JSON."""
    return dumped(_REQUEST, request)


def report_document(report: BakeReport) -> str:
    """A report as JSON; the NUL character becomes U+FFFD.

    Raises:
        ValidationError: It could not be read back, since it holds what JSON does not, such as NaN.
    """
    return dumped(_REPORT, replace(report, failures=storable_failures(report.failures)))


def config_document(config: dict[str, Any]) -> str:
    """A method's settings as JSON."""
    return dumped(_CONFIG, config)


def edits_document(edits: tuple[BakedEdit, ...]) -> str:
    """Ids and revisions as JSON."""
    return dumped(_EDITS, edits)


def version_number(version_id: str) -> int:
    """3 for `v3`, and 0 for `v0`.

    Raises:
        ValueError: It cannot be a version's id.
    """
    number = 0 if version_id == f"{VERSION_PREFIX}0" else number_in(VERSION_PREFIX, version_id)
    if number is None:
        raise ValueError(f"{version_id!r} is no version's id")
    return number


def base_values(base: Base) -> dict[str, str]:
    """A base model in its columns."""
    return {f"base_{name}": value for name, value in asdict(base).items()}


def bake_of(row: Row[Any]) -> Bake:
    """The bake in a row whose documents were selected as text."""
    return Bake(
        id=f"{BAKE_PREFIX}{row.id}",
        state=BakeState(row.state),
        request=_REQUEST.validate_json(row.request, strict=True),
        base=Base(name=row.base_name, fingerprint=row.base_fingerprint),
        edits=_EDITS.validate_json(row.edits, strict=True),
        parent=f"{VERSION_PREFIX}{row.parent}",
        actor=row.actor,
        created_at=row.created_at.astimezone(UTC),
        started_at=utc(row.started_at),
        finished_at=utc(row.finished_at),
        stage=None if row.stage is None else Stage(row.stage),
        percent=row.percent,
        report=None if row.report is None else _REPORT.validate_json(row.report, strict=True),
        version=None if row.version is None else f"{VERSION_PREFIX}{row.version}",
        error=row.error,
    )


def version_of(row: Row[Any], edits: Sequence[Row[Any]]) -> Version:
    """The version in a row whose documents were selected as text, with the rows of its edits in order."""
    return Version(
        id=f"{VERSION_PREFIX}{row.number}",
        base=Base(name=row.base_name, fingerprint=row.base_fingerprint),
        parent=f"{VERSION_PREFIX}{row.parent}",
        edits=tuple(BakedEdit(id=f"e{edit.edit}", revision=edit.revision) for edit in edits),
        method=row.method,
        config=_CONFIG.validate_json(row.config, strict=True),
        report=_REPORT.validate_json(row.report, strict=True),
        artifact=Artifact(digest=row.digest, size=row.size),
        actor=row.actor,
        created_at=row.created_at.astimezone(UTC),
        revision=row.revision,
        bake=None if row.bake is None else f"{BAKE_PREFIX}{row.bake}",
    )
