"""What is served: the base, until a version is activated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25"
down_revision = "2026_11_24"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "serving",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("active", sa.BigInteger(), nullable=False),
        sa.Column("canary", sa.BigInteger()),
        sa.Column("percent", sa.BigInteger(), nullable=False),
        sa.Column("back", sa.BigInteger()),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_serving")),
        sa.ForeignKeyConstraint(["back"], ["serving.revision"], name=op.f("fk_serving_back_serving")),
        sa.CheckConstraint(
            "(canary IS NULL) = (percent = 0) AND percent BETWEEN 0 AND 99",
            name=op.f("ck_serving_canary_has_a_share"),
        ),
        sa.CheckConstraint("canary <> active", name=op.f("ck_serving_canary_is_another")),
        sa.CheckConstraint("back < revision", name=op.f("ck_serving_back_is_before")),
    )
    op.execute("INSERT INTO serving (revision, active, percent) VALUES (0, 0, 0)")
    op.execute("""
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON serving
    FOR EACH ROW EXECUTE FUNCTION errata_append_only()
    """)


def downgrade() -> None:
    op.drop_table("serving")
