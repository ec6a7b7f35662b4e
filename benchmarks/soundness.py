"""Whether a database is whole, and a replica agrees with it: what must hold whatever was killed when."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx
import psycopg

from benchmarks.ledger import Write
from service.store.store import WRITE_LOCK
from service.store.urls import conninfo

_ASKED_AT_ONCE = 256

_HALVES = {
    "an edit without the change that it names": """
        SELECT 'e' || id FROM edits LEFT JOIN changes c
        ON c.revision = edits.revision AND c.subject_id = 'e' || id WHERE c.revision IS NULL""",
    "an edit whose newest change is another": """
        SELECT 'e' || id FROM edits JOIN changes c ON c.subject_id = 'e' || id
        GROUP BY id, edits.revision HAVING max(c.revision) <> edits.revision""",
    "an edit that was not added once": """
        SELECT 'e' || id FROM edits LEFT JOIN changes c
        ON c.subject_id = 'e' || id AND c.kind = 'edit.added' GROUP BY id HAVING count(c.revision) <> 1""",
    "a change without its edit": """
        SELECT subject_id FROM changes LEFT JOIN edits ON subject_id = 'e' || id
        WHERE changes.kind LIKE 'edit.%' AND id IS NULL""",
    "an edit whose state is not that of its newest change": """
        SELECT 'e' || id FROM edits JOIN changes c ON c.revision = edits.revision
        WHERE (edits.state = 'retracted') <> (c.kind IN ('edit.retracted', 'edit.superseded'))""",
    # 384 numbers of four bytes for each of its texts, by the bundled sentence encoder.
    "an edit without all its embeddings": """
        SELECT 'e' || id FROM edits WHERE octet_length(vectors) <> 4 * 384 * (
            1 + jsonb_array_length(descriptor #> '{scope,in_scope}')
              + jsonb_array_length(descriptor #> '{scope,out_of_scope}'))""",
    "an edit that supersedes another that does not know it": """
        SELECT 'e' || new.id FROM edits new JOIN edits old ON new.supersedes = old.id
        WHERE old.superseded_by IS DISTINCT FROM new.id OR old.state <> 'retracted'""",
    "a gap in the revisions": "SELECT count(*)::text FROM changes HAVING count(*) <> coalesce(max(revision), 0)",
}
_LOG = (
    "SELECT subject_id, array_agg(revision ORDER BY revision) FROM changes WHERE kind LIKE 'edit.%' GROUP BY subject_id"
)
_FACES = """
SELECT tags[1], array_agg('e' || id), array_agg(state), array_agg(descriptor ->> 'target') FROM edits GROUP BY tags[1]
"""


def faces(url: str) -> tuple[Write, dict[str, str], list[str]]:
    """The face and the id of each edit in a database, by its tag; and what is wrong with that database, in words.

    It waits for the write lock, so that no writer is at work that a killed process has left behind.
    """
    with psycopg.connect(conninfo(url)) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (WRITE_LOCK,))
        rows = connection.execute(_FACES).fetchall()
        wrong = _halves(connection)
    wrong += [f"{tag} is there {len(ids)} times" for tag, ids, _, _ in rows if len(ids) != 1]
    seen = {tag: (states[0], targets[0]) for tag, _, states, targets in rows}
    return seen, {tag: ids[0] for tag, ids, _, _ in rows}, wrong


def halves(url: str) -> list[str]:
    """What is half there in a database, in words."""
    with psycopg.connect(conninfo(url)) as connection:
        return _halves(connection)


def log(url: str) -> dict[str, list[int]]:
    """The revisions of each edit, by its id."""
    with psycopg.connect(conninfo(url)) as connection:
        return dict(connection.execute(_LOG).fetchall())


def disagreements(client: httpx.Client) -> list[str]:
    """Where a replica that is ready disagrees with its database, by its own figures."""
    ready = client.get("/readyz")
    wrong = [] if ready.status_code == 200 else [f"not ready: {ready.text}"]
    shown = dict(re.findall(r"^(errata:\S+) (\S+)$", client.get("/metrics").text, re.MULTILINE))
    pairs = {
        "errata:index_rows": "errata:database_rows",
        "errata:memory_edits": 'errata:edits{state="active"}',
        "errata:revision": "errata:database_revision",
    }
    for here, there in pairs.items():
        if here not in shown or shown[here] != shown.get(there):
            wrong.append(f"{here} is {shown.get(here)} and {there} is {shown.get(there)}")
    return wrong


def unanswered(client: httpx.Client, prompts: Mapping[str, str], seen: Write, ids: Mapping[str, str]) -> list[str]:
    """Edits in force that do not answer their own prompt, and others that do."""
    wrong = []
    tags = [tag for tag in prompts if tag in seen]
    for start in range(0, len(tags), _ASKED_AT_ONCE):
        some = tags[start : start + _ASKED_AT_ONCE]
        response = client.post("/edits/match", json={"prompts": [prompts[tag] for tag in some]}).raise_for_status()
        matches: list[dict[str, Any]] = response.json()["matches"]
        for tag, match in zip(some, matches, strict=True):
            if (match["edit_id"] == ids[tag]) != (seen[tag][0] == "active"):
                wrong.append(f"{ids[tag]} is {seen[tag][0]} and {match['edit_id']} answers its prompt")
    return wrong


def _halves(connection: psycopg.Connection) -> list[str]:
    return [f"{name}: {subject}" for name, query in _HALVES.items() for (subject,) in connection.execute(query)]
