"""Bring a database to the schema that this code needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

import migrations
from service.errors import StartupError
from service.store.failures import reason
from service.store.urls import engine_url

CONNECT_SECONDS = 10


def migrate(url: str) -> None:
    """Apply the migrations that the database lacks, in one transaction; of servers that start at once, one does.

    Raises:
        StartupError: PostgreSQL does not answer or refuses, or the database is newer than this code.
    """
    engine = create_engine(engine_url(url), poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    try:
        with engine.begin() as connection:
            _check(connection)
        with engine.begin() as connection:
            command.upgrade(alembic_config(connection), "head")
    except (DBAPIError, CommandError) as error:
        raise StartupError(
            f"The database {engine.url.render_as_string()} could not be prepared: {reason(error)}.",
            hint="Check ERRATA_DATABASE_URL, that PostgreSQL runs, and that its user may create tables.",
        ) from error


def code_head() -> str:
    """The newest migration that this code knows."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None, "the package has migrations"
    return head


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; its commands run on `connection`, whose transaction is the caller's."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _check(connection: Connection) -> None:
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise StartupError(
            f"The database's encoding is {encoding}, which cannot hold every text.",
            hint="Make one with CREATE DATABASE errata ENCODING 'UTF8' TEMPLATE template0.",
        )
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    newer = set(MigrationContext.configure(connection).get_current_heads()) - known
    if newer:
        raise StartupError(
            f"The database is at migration {', '.join(sorted(newer))}, which this version of Errata does not know.",
            hint="Run the version that made it, or a newer one; to go back, downgrade the database with that version.",
        )
