"""Bakes, and the versions that they make, which nothing changes again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_24"
down_revision = "2026_11_23"
branch_labels = None
depends_on = None

_APPEND_ONLY = ("versions", "version_edits")


def upgrade() -> None:
    _versions()
    _bakes()
    op.execute("""
    CREATE FUNCTION errata_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of % are never changed or deleted', TG_TABLE_NAME;
    END;
    $$
    """)
    for table in _APPEND_ONLY:
        op.execute(f"""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION errata_append_only()
        """)


def _versions() -> None:
    op.create_table(
        "versions",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parent", sa.BigInteger(), nullable=False),
        sa.Column("base_name", sa.Text(), nullable=False),
        sa.Column("base_fingerprint", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("config", postgresql.JSONB(), nullable=False),
        sa.Column("report", postgresql.JSONB(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_versions")),
        sa.CheckConstraint("number > parent AND parent >= 0", name=op.f("ck_versions_follows_its_parent")),
    )
    op.create_table(
        "version_edits",
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("edit", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", "place", name=op.f("pk_version_edits")),
        sa.ForeignKeyConstraint(["version"], ["versions.number"], name=op.f("fk_version_edits_version_versions")),
        sa.ForeignKeyConstraint(["edit"], ["edits.id"], name=op.f("fk_version_edits_edit_edits")),
    )
    op.create_index(op.f("ix_version_edits_edit"), "version_edits", ["edit"])


def _bakes() -> None:
    op.create_table(
        "bakes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(), nullable=False),
        sa.Column("edits", postgresql.JSONB(), nullable=False),
        sa.Column("base_name", sa.Text(), nullable=False),
        sa.Column("base_fingerprint", sa.Text(), nullable=False),
        sa.Column("parent", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("stage", sa.Text()),
        sa.Column("percent", sa.BigInteger(), nullable=False),
        sa.Column("claimed", sa.Text()),
        sa.Column("report", postgresql.JSONB()),
        sa.Column("version", sa.BigInteger()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bakes")),
        sa.ForeignKeyConstraint(["version"], ["versions.number"], name=op.f("fk_bakes_version_versions")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'refused', 'failed', 'cancelled')", name=op.f("ck_bakes_state")
        ),
        sa.CheckConstraint(
            "(report IS NOT NULL) = (state IN ('done', 'refused'))", name=op.f("ck_bakes_measured_has_a_report")
        ),
        sa.CheckConstraint("(version IS NOT NULL) = (state = 'done')", name=op.f("ck_bakes_done_has_a_version")),
        sa.CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name=op.f("ck_bakes_failed_has_an_error")),
    )


def downgrade() -> None:
    op.drop_table("bakes")
    op.drop_table("version_edits")
    op.drop_table("versions")
    op.execute("DROP FUNCTION errata_append_only()")
