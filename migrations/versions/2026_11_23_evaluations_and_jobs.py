"""Evaluations, and the tables of procrastinate, which keeps the jobs."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy.dialects import postgresql

revision = "2026_11_23"
down_revision = "2026_11_22"
branch_labels = None
depends_on = None

# Of procrastinate's own migrations, which its releases keep as they are and add to; those after this one need a
# migration of ours, so that a database made today and one made later are the same.
NEWEST_OF_PROCRASTINATE = "03.04.00_50_post_add_retry_failed_job_procedure.sql"


def upgrade() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(), nullable=False),
        sa.Column("report", postgresql.JSONB()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name=op.f("ck_evaluations_state")
        ),
        sa.CheckConstraint("(report IS NOT NULL) = (state = 'done')", name=op.f("ck_evaluations_done_has_a_report")),
        sa.CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name=op.f("ck_evaluations_failed_has_an_error")),
    )
    for script in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
        if script.name <= NEWEST_OF_PROCRASTINATE:
            _run(script.read_text(encoding="utf-8"))


def downgrade() -> None:
    _run("""
    DO $$
    DECLARE
        routine regprocedure;
    BEGIN
        FOR routine IN
            SELECT oid FROM pg_proc
            WHERE starts_with(proname, 'procrastinate_') AND pronamespace = current_schema()::regnamespace
        LOOP
            EXECUTE 'DROP FUNCTION ' || routine || ' CASCADE';  -- and the triggers that call it
        END LOOP;
    END;
    $$;
    DROP TABLE procrastinate_events, procrastinate_periodic_defers, procrastinate_jobs, procrastinate_workers;
    DROP TYPE procrastinate_job_to_defer_v1, procrastinate_job_event_type, procrastinate_job_status;
    """)
    op.drop_table("evaluations")


def _run(script: str) -> None:
    """Run several statements as they are, without parameters."""
    op.get_bind().exec_driver_sql(script, execution_options={"no_parameters": True})
