"""Search edits by their words, pause them, and find those whose time has come."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_26"
down_revision = "2026_11_25"
branch_labels = None
depends_on = None

_STATES = "state IN ('draft', 'active', 'paused', 'expired', 'retracted')"
_STATES_BEFORE = "state IN ('draft', 'active', 'expired', 'retracted')"
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)


def upgrade() -> None:
    op.drop_constraint(op.f("ck_edits_state"), "edits", type_="check")
    op.create_check_constraint(op.f("ck_edits_state"), "edits", _STATES)
    _rewrite_search(_words)
    words = sa.Computed("to_tsvector('simple'::regconfig, search)", persisted=True)
    op.add_column("edits", sa.Column("words", postgresql.TSVECTOR(), words))
    op.create_index(op.f("ix_edits_words"), "edits", ["words"], postgresql_using="gin")
    op.create_index(op.f("ix_edits_tags"), "edits", ["tags"], postgresql_using="gin")
    timed = sa.text("state IN ('active', 'paused')")
    op.create_index(op.f("ix_edits_expires_at"), "edits", ["expires_at"], postgresql_where=timed)


def downgrade() -> None:
    op.drop_index(op.f("ix_edits_expires_at"), "edits")
    op.drop_index(op.f("ix_edits_tags"), "edits")
    op.drop_column("edits", "words")
    _rewrite_search(_fold)
    # What it was before it was paused does not answer either.
    op.execute("UPDATE edits SET state = 'draft' WHERE state = 'paused'")
    op.drop_constraint(op.f("ck_edits_state"), "edits", type_="check")
    op.create_check_constraint(op.f("ck_edits_state"), "edits", _STATES_BEFORE)


def _rewrite_search(rewritten: Callable[[str], str]) -> None:
    connection = op.get_bind()
    texts = sa.text("SELECT id, descriptor->>'prompt' AS prompt, descriptor->>'target' AS target FROM edits")
    rows = [{"id": row.id, "search": rewritten(f"{row.prompt}\n{row.target}")} for row in connection.execute(texts)]
    if rows:
        connection.execute(sa.text("UPDATE edits SET search = :search WHERE id = :id"), rows)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())


def _words(text: str) -> str:
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in _fold(text))
    return " ".join(re.sub(f"([{_UNSPACED}])", r" \1 ", kept).split())
