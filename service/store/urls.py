"""Database URLs, as operators write them and as SQLAlchemy and psycopg take them."""

from __future__ import annotations

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from service.errors import StartupError


def engine_url(url: str) -> URL:
    """The URL with the driver that we use.

    Raises:
        StartupError: It is no PostgreSQL URL. The message never shows it, since it may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername.partition("+")[0] not in {"postgresql", "postgres"}:
        raise StartupError(
            "The database URL is not a PostgreSQL URL.",
            hint="ERRATA_DATABASE_URL looks like postgresql://user:password@host:5432/database.",
        )
    return parsed.set(drivername="postgresql+psycopg")


def conninfo(url: str) -> str:
    """The URL as psycopg takes it, for whoever connects without SQLAlchemy.

    Raises:
        StartupError: It is no PostgreSQL URL.
    """
    parsed = engine_url(url)
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    return make_conninfo(**options)
