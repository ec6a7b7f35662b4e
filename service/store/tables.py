"""The tables. Migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR, ExcludeConstraint

ACTIVE_KEY = "ex_edits_active_key"
SUPERSEDES = "fk_edits_supersedes_edits"
KEY_NAME = "uq_keys_name"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

edits = Table(
    "edits",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    # The SHA-256 of the descriptor's key: an index entry holds 2,704 bytes at most, and a prompt may be longer.
    Column("key", LargeBinary, nullable=False),
    Column("descriptor", JSONB, nullable=False),
    # The words of prompt and target, one space between two; told apart by us, since a database in the C locale takes
    # every character beyond ASCII for a letter.
    Column("search", Text, nullable=False),
    Column("words", TSVECTOR, Computed("to_tsvector('simple'::regconfig, search)", persisted=True)),
    Column("expires_at", TIMESTAMP(timezone=True)),
    Column("reason", Text),
    Column("tags", ARRAY(Text), nullable=False),
    Column("supersedes", BigInteger, ForeignKey("edits.id")),
    Column("superseded_by", BigInteger, ForeignKey("edits.id")),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("updated_at", TIMESTAMP(timezone=True), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("vectors", LargeBinary, nullable=False),
    CheckConstraint("kind IN ('qa', 'fact', 'statement', 'sentiment')", name="kind"),
    CheckConstraint("state IN ('draft', 'active', 'paused', 'expired', 'retracted')", name="state"),
    CheckConstraint("superseded_by IS NULL OR state = 'retracted'", name="superseded_is_retracted"),
    Index(None, "words", postgresql_using="gin"),
    Index(None, "tags", postgresql_using="gin"),
    Index(None, "expires_at", postgresql_where=text("state IN ('active', 'paused')")),
)

# A unique index, but for its being checked at commit: an edit can be added before the one it supersedes is retracted.
edits.append_constraint(
    ExcludeConstraint(
        (edits.c.key, "="),
        using="btree",
        where=text("state = 'active'"),
        name=ACTIVE_KEY,
        deferrable=True,
        initially="DEFERRED",
    )
)

changes = Table(
    "changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text),
    Column("at", TIMESTAMP(timezone=True), nullable=False),
    Column("payload", JSONB, nullable=False),
    Index(None, "subject_id"),
)

# Nothing searches inside requests and reports, so each is one document.
evaluations = Table(
    "evaluations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("state", Text, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("report", JSONB),
    Column("actor", Text, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("started_at", TIMESTAMP(timezone=True)),
    Column("finished_at", TIMESTAMP(timezone=True)),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("error", Text),
    CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name="state"),
    CheckConstraint("(report IS NOT NULL) = (state = 'done')", name="done_has_a_report"),
    CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name="failed_has_an_error"),
)

bakes = Table(
    "bakes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("state", Text, nullable=False),
    Column("request", JSONB, nullable=False),
    # Ids and revisions as they were resolved when it was asked for.
    Column("edits", JSONB, nullable=False),
    Column("base_name", Text, nullable=False),
    Column("base_fingerprint", Text, nullable=False),
    Column("parent", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("started_at", TIMESTAMP(timezone=True)),
    Column("finished_at", TIMESTAMP(timezone=True)),
    Column("stage", Text),
    Column("percent", BigInteger, nullable=False),
    # The digest that it is about to put, or has put, and that no version names yet.
    Column("claimed", Text),
    Column("report", JSONB),
    Column("version", BigInteger, ForeignKey("versions.number")),
    Column("error", Text),
    CheckConstraint("state IN ('queued', 'running', 'done', 'refused', 'failed', 'cancelled')", name="state"),
    CheckConstraint("(report IS NOT NULL) = (state IN ('done', 'refused'))", name="measured_has_a_report"),
    CheckConstraint("(version IS NOT NULL) = (state = 'done')", name="done_has_a_version"),
    CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name="failed_has_an_error"),
)

# Append-only: a trigger that the migration makes refuses to change or delete a row of the next three.
versions = Table(
    "versions",
    metadata,
    # Given out under the write lock, without gaps; 0 is the base, which has no row.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("parent", BigInteger, nullable=False),
    Column("base_name", Text, nullable=False),
    Column("base_fingerprint", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("config", JSONB, nullable=False),
    Column("report", JSONB, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("number > parent AND parent >= 0", name="follows_its_parent"),
)

# Append-only as well: the newest row is what is served. Versions by number, so 0 is the base.
serving = Table(
    "serving",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("active", BigInteger, nullable=False),
    Column("canary", BigInteger),
    Column("percent", BigInteger, nullable=False),
    Column("back", BigInteger, ForeignKey("serving.revision")),
    CheckConstraint("(canary IS NULL) = (percent = 0) AND percent BETWEEN 0 AND 99", name="canary_has_a_share"),
    CheckConstraint("canary <> active", name="canary_is_another"),
    CheckConstraint("back < revision", name="back_is_before"),
)

version_edits = Table(
    "version_edits",
    metadata,
    Column("version", BigInteger, ForeignKey("versions.number"), primary_key=True),
    Column("place", BigInteger, primary_key=True),
    Column("edit", BigInteger, ForeignKey("edits.id"), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index(None, "edit"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("expires_at", TIMESTAMP(timezone=True)),
    Column("revoked_at", TIMESTAMP(timezone=True)),
    UniqueConstraint("name", name=KEY_NAME),
)

# Status, headers and body are empty only while the transaction that claims the row runs.
receipts = Table(
    "receipts",
    metadata,
    Column("actor", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("at", TIMESTAMP(timezone=True), nullable=False),
    Column("status", BigInteger),
    Column("headers", JSONB),
    Column("body", LargeBinary),
    Index(None, "at"),
)
