"""Databases of their own for tests, and a way to look at them outside the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import make_url


@contextmanager
def database(postgres: str, options: str = "") -> Iterator[str]:
    """A fresh database on that server, dropped at the end."""
    name = f"test_{uuid4().hex}"
    execute(postgres, f"CREATE DATABASE {name} {options}")
    yield on_database(postgres, name)
    execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


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
