"""Edits and the change log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_22"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "edits",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("descriptor", postgresql.JSONB(), nullable=False),
        sa.Column("search", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("reason", sa.Text()),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("supersedes", sa.BigInteger()),
        sa.Column("superseded_by", sa.BigInteger()),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("encoder", sa.Text(), nullable=False),
        sa.Column("vectors", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edits")),
        sa.ForeignKeyConstraint(["supersedes"], ["edits.id"], name=op.f("fk_edits_supersedes_edits")),
        sa.ForeignKeyConstraint(["superseded_by"], ["edits.id"], name=op.f("fk_edits_superseded_by_edits")),
        sa.CheckConstraint("kind IN ('qa', 'fact', 'statement', 'sentiment')", name=op.f("ck_edits_kind")),
        sa.CheckConstraint("state IN ('draft', 'active', 'expired', 'retracted')", name=op.f("ck_edits_state")),
        sa.CheckConstraint(
            "superseded_by IS NULL OR state = 'retracted'", name=op.f("ck_edits_superseded_is_retracted")
        ),
        postgresql.ExcludeConstraint(
            (sa.column("key"), "="),
            using="btree",
            where=sa.text("state = 'active'"),
            name="ex_edits_active_key",
            deferrable=True,
            initially="DEFERRED",
        ),
    )
    op.create_table(
        "changes",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_changes")),
    )
    op.create_index(op.f("ix_changes_subject_id"), "changes", ["subject_id"])


def downgrade() -> None:
    op.drop_table("changes")
    op.drop_table("edits")
