"""How Alembic runs the migrations: on the connection it is given, one process at a time, without hanging on a lock."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from service.store.tables import metadata

MIGRATION_LOCK = 0x6572726174612D6D


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    """Whether a table of the database should be declared in the code; procrastinate's are its own affair."""
    return kind != "table" or not (name or "").startswith("procrastinate_")


connection = context.config.attributes["connection"]
# Others wait here while one migrates, and then find nothing left to do.
wait = text("SELECT set_config('lock_timeout', '60s', true), pg_advisory_xact_lock(:lock)")
connection.execute(wait, {"lock": MIGRATION_LOCK})
# A statement that waits for a table makes everyone after it wait too: give up soon, and let the operator try again.
connection.execute(text("SET LOCAL lock_timeout = '5s'"))
context.configure(connection=connection, target_metadata=metadata, compare_server_default=True, include_name=_is_ours)
with context.begin_transaction():
    context.run_migrations()
