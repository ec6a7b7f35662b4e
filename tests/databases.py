"""Databases of their own for tests, and a way to look at them outside the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import make_url


class Server:
    """A PostgreSQL to make databases on.

    Attributes:
        url: Of its own database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(conninfo(url), autocommit=True)

    @contextmanager
    def database(self, options: str = "") -> Iterator[str]:
        """A fresh database, dropped at the end."""
        name = f"test_{uuid4().hex}"
        self._connection.execute(f"CREATE DATABASE {name} {options}")
        yield on_database(self.url, name)
        self._connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        self._connection.close()


def on_database(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each in its own transaction; the rows of the last one."""
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def conninfo(url: str) -> str:
    """The URL as psycopg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
