"""The schema is made by migrations, once, and agrees with the tables in the code."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic import command
from procrastinate.schema import SchemaManager
from sqlalchemy import create_engine, text

from service.domain.edits import EditFilter
from service.errors import StartupError
from service.store.migrate import alembic_config, code_head, migrate
from service.store.store import PostgresStore
from service.store.tables import metadata
from service.store.urls import engine_url
from tests.databases import conninfo, execute

SCHEMA = """
SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text !~ '^(alembic_version|procrastinate_.*)$'
UNION ALL
SELECT tablename::text, indexname::text, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename !~ '^(alembic_version|procrastinate_.*)$' ORDER BY 1, 2, 3
"""
OF_PROCRASTINATE = """
SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT oid::regprocedure::text, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT tgname::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT typname::text, '' FROM pg_type WHERE typnamespace = 'public'::regnamespace
"""

MIGRATION_LOCK = 0x6572726174612D6D
WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid
WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted
"""
REPOSITORY = Path(__file__).parents[2]


@contextmanager
def database_lock(url):
    """Hold the lock that migrations wait for."""
    engine = create_engine(engine_url(url))
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        yield
    engine.dispose()


def of_procrastinate(url):
    """What it has in a database, whatever its spacing."""
    return {
        (name, " ".join(definition.split()))
        for name, definition in execute(url, OF_PROCRASTINATE)
        if "procrastinate" in name + definition
    }


def test_migrations_go_up_down_and_up_again_and_agree_with_the_tables(empty_database_url):
    engine = create_engine(engine_url(empty_database_url))
    for step, target in ((command.upgrade, "head"), (command.downgrade, "base"), (command.upgrade, "head")):
        with engine.begin() as connection:
            step(alembic_config(connection), target)
        left = execute(empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert len(left) == (1 if target == "base" else 14)
        functions = execute(empty_database_url, "SELECT 1 FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        assert bool(functions) == (target == "head")
    with engine.begin() as connection:
        command.check(alembic_config(connection))
    engine.dispose()


def test_migrations_make_the_constraints_and_indexes_that_the_tables_declare(database_url, empty_database_url):
    engine = create_engine(engine_url(empty_database_url))
    metadata.create_all(engine)
    engine.dispose()
    declared = execute(empty_database_url, SCHEMA)
    assert execute(database_url, SCHEMA) == declared
    assert len(declared) >= 9


def test_the_tables_of_jobs_are_those_of_the_procrastinate_that_is_installed(database_url, empty_database_url):
    """Fails when a new procrastinate brings migrations of its own: apply them in one of ours."""
    execute(empty_database_url, SchemaManager.get_schema())
    wanted = of_procrastinate(empty_database_url)
    assert of_procrastinate(database_url) == wanted
    assert len(wanted) > 50


@pytest.mark.anyio
async def test_edits_from_before_the_search_by_words_are_found_by_them_and_the_way_back_is_open(empty_database_url):
    engine = create_engine(engine_url(empty_database_url))
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "2026_11_24")
    descriptor = {"prompt": "誰が首相か?", "target": "ÉLISE", "kind": "qa", "subject": None, "answer": "verbatim"}
    descriptor |= {"scope": {"in_scope": [], "out_of_scope": [], "threshold": None}}
    added = """
    INSERT INTO edits (kind, state, key, descriptor, search, tags, created_at, updated_at, revision, encoder, vectors)
    VALUES ('qa', 'active', '', %s, '誰が首相か?\nélise', '{}', now(), now(), 1, '', '')
    """
    with psycopg.connect(conninfo(empty_database_url), autocommit=True) as connection:
        connection.execute(added, [json.dumps(descriptor)])
    before = execute(empty_database_url, "SELECT search FROM edits")
    migrate(empty_database_url)
    async with PostgresStore(empty_database_url) as store, store.reading() as reading:
        for q in ("首相", "Élise"):
            assert len((await reading.edits.page(EditFilter(q=q))).data) == 1
    execute(empty_database_url, "UPDATE edits SET state = 'paused'")
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "2026_11_24")
    engine.dispose()
    assert execute(empty_database_url, "SELECT search FROM edits") == before
    assert execute(empty_database_url, "SELECT state FROM edits") == [("draft",)]


def test_servers_that_start_at_once_migrate_once(empty_database_url):
    start = [sys.executable, "-c", "import sys; from service.store.migrate import migrate; migrate(sys.argv[1])"]
    with database_lock(empty_database_url):
        servers = [subprocess.Popen([*start, empty_database_url], cwd=REPOSITORY) for _ in range(2)]
        while execute(empty_database_url, WAITING) != [(2,)]:
            assert [server.poll() for server in servers] == [None, None]
    assert [server.wait() for server in servers] == [0, 0]
    assert execute(empty_database_url, "SELECT version_num FROM alembic_version") == [(code_head(),)]


def test_a_migrated_database_is_left_as_it_is(database_url):
    before = execute(database_url, SCHEMA)
    migrate(database_url)
    assert execute(database_url, SCHEMA) == before


def test_a_database_newer_than_the_code_is_refused(database_url):
    execute(database_url, "UPDATE alembic_version SET version_num = '2099_01_01_flying_cars'")
    with pytest.raises(StartupError, match="2099_01_01_flying_cars") as refused:
        migrate(database_url)
    assert refused.value.hint


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url):
    execute(empty_database_url, "CREATE TABLE changes (mine integer)")
    with pytest.raises(StartupError, match="changes"):
        migrate(empty_database_url)
    assert execute(empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("changes",)]


def test_a_database_that_cannot_hold_every_text_is_refused(postgres):
    latin = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    with postgres.database(latin) as url, pytest.raises(StartupError, match="LATIN1"):
        migrate(url)


@pytest.mark.parametrize(
    "url", ["sqlite:///errata.db", "mysql://root:s3cret@db/errata", "nonsense s3cret", "", "http://x:y"]
)
def test_what_is_no_postgresql_url_is_refused_without_showing_it(url):
    with pytest.raises(StartupError) as refused:
        migrate(url)
    assert "s3cret" not in f"{refused.value} {refused.value.hint}"
    assert "ERRATA_DATABASE_URL" in refused.value.hint


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"])
def test_every_way_to_write_a_postgresql_url_is_taken(scheme):
    url = engine_url(f"{scheme}://ann:p%40ss@db.example:5433/errata?sslmode=require")
    assert url.render_as_string(hide_password=False) == (
        "postgresql+psycopg://ann:p%40ss@db.example:5433/errata?sslmode=require"
    )


def test_a_database_that_does_not_answer_is_named_without_its_password():
    with pytest.raises(StartupError, match=r"127\.0\.0\.1:1/errata") as refused:
        migrate("postgresql://ann:s3cret@127.0.0.1:1/errata")
    assert "s3cret" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.anyio
async def test_the_store_says_which_migration_the_database_is_at(store, empty_database_url):
    assert await store.migration() == (code_head(), code_head())
    async with PostgresStore(empty_database_url) as empty:
        assert await empty.migration() == (None, code_head())
