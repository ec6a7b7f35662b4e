"""Files of edits through the door: all or none, and out again as they went in."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from threading import Event

import httpx
import pytest

from service.actions.services import Services
from service.domain.edits import NewEdit
from service.domain.imports import MOST_ERRORS
from service.settings import Settings
from service.store.migrate import migrate
from service.store.store import PostgresStore
from tests.fakes import ExactRuntime, client_of
from tests.integration.api.test_api_cli import served

pytestmark = pytest.mark.anyio

NDJSON = {"Content-Type": "application/x-ndjson"}
LATER = "2999-01-31T12:00:00Z"
EDITS = [
    {"prompt": "Who leads the UK?", "target": "A", "subject": "the UK", "tags": ["uk", "x"], "reason": "News."},
    {"prompt": "Who leads the UK?", "target": "B", "state": "draft"},
    {"prompt": "Who leads France?", "target": "C", "state": "paused", "expires_at": LATER},
    {"prompt": "¿De quién? \u202eمن هو\u202c e\u0301\u2028", "target": " x\n\t", "answer": "verbatim"},
    {"kind": "fact", "claim": "Tea is a drink.", "label": False, "scope": {"threshold": 0.25}},
    {"kind": "statement", "statement": "Tea is hot.", "scope": {"in_scope": ["Tea?"], "out_of_scope": ["Coffee?"]}},
    {"kind": "sentiment", "topic": "tea", "sentiment": "positive"},
]


def file_of(edits):
    return "".join(json.dumps(edit) + "\n" for edit in edits).encode()


async def import_(client, content, **headers):
    return await client.post("/edits/import", content=content, headers=NDJSON | headers)


async def listed(client, query="state=all&limit=200"):
    return (await client.get(f"/edits?{query}")).json()["data"]


def kept(edit):
    own = ("id", "revision", "created_at", "updated_at")
    return {name: value for name, value in edit.items() if name not in own}


async def test_a_file_of_edits_is_in_force_from_the_answer_on(client):
    response = await import_(client, file_of(EDITS))
    assert response.status_code == 201, response.text
    ids = [f"e{number}" for number in range(1, 8)]
    assert response.json() == {"imported": 7, "ids": ids, "revision": 7}
    edits = (await listed(client))[::-1]
    assert [(edit["id"], edit["revision"]) for edit in edits] == [(edit_id, n) for n, edit_id in enumerate(ids, 1)]
    for sent, edit in zip(EDITS, edits, strict=True):
        flat = {name: value for name, value in sent.items() if name != "scope"}
        assert {name: edit[name] for name in flat} == flat
    answer = (await client.post("/generate", json={"prompt": "Who leads the UK?"})).json()
    assert (answer["edit_id"], answer["text"], answer["revision"]) == ("e1", "A", 7)
    changes = [(await client.get(f"/edits/{edit_id}/history")).json()["data"] for edit_id in ids]
    assert [[change["kind"] for change in own] for own in changes] == [["edit.added"]] * 7


async def test_what_is_exported_can_be_imported_and_is_the_same(client, post, postgres, baker, artifacts):
    await import_(client, file_of(EDITS))
    retracted = await post(prompt="Gone?", target="Yes")
    await client.delete(f"/edits/{retracted['id']}")
    exported = await client.get("/edits/export")
    assert exported.headers["Content-Type"].startswith("application/x-ndjson")
    with postgres.database() as url:
        migrate(url)
        async with PostgresStore(url) as store, client_of(Services(store, ExactRuntime(store), None, None)) as other:
            imported = await import_(other, exported.content)
            assert imported.json()["imported"] == len(EDITS)
            assert (await other.get("/edits/export")).content == exported.content
            assert [kept(edit) for edit in await listed(other)] == [
                kept(edit) for edit in await listed(client) if edit["state"] != "retracted"
            ]


@pytest.mark.parametrize(
    ("query", "found"), [("state=draft", ["B"]), ("tag=uk", ["A"]), ("q=france", ["C"]), ("kind=qa&q=uk", ["A", "B"])]
)
async def test_an_export_can_be_narrowed(client, query, found):
    await import_(client, file_of(EDITS))
    lines = (await client.get(f"/edits/export?{query}")).text.splitlines()
    assert [json.loads(line)["target"] for line in lines] == found


async def test_an_export_of_nothing_is_an_empty_file_that_can_be_imported(client):
    exported = await client.get("/edits/export")
    assert (exported.status_code, exported.content) == (200, b"")
    assert (await import_(client, exported.content)).json() == {"imported": 0, "ids": [], "revision": 0}


async def test_an_export_longer_than_a_page_holds_every_edit_once(client):
    edits = [{"kind": "qa", "prompt": f"Question {number}?", "target": "x"} for number in range(1_201)]
    assert (await import_(client, file_of(edits))).status_code == 201
    lines = (await client.get("/edits/export")).content.splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == [edit["prompt"] for edit in edits]


async def test_every_bad_line_is_told_by_its_number_and_nothing_is_imported(client, post):
    await post(prompt="Who leads Spain?", target="S")
    content = b"\n".join(
        [
            b'\xef\xbb\xbf{"prompt": "a", "target": "b"}',
            b"{",
            b"",
            b'{"prompt": "c"}\r',
            b'{"prompt": " A? ", "target": "d"}',
            b'{"prompt": "Who leads Spain?", "target": "T"}',
            b'{"prompt": "e", "target": "f", "supersedes": "e99"}',
            b'{"prompt": "\xff", "target": "g"}',
            b'{"prompt": "h\\u0000", "target": "\\ud800"}',
            b'{"prompt": "i", "target": "' + b"word " * 100 + b'"}',
            b"[" * 100_000,
            b'{"prompt": "j", "target": "k", "expires_at": "2001-01-01T00:00:00Z"}',
            b'{"prompt": "l", "target": "m", "id": "e5"}',
            b'{"prompt": "n", "target": "o", "state": "draft", "supersedes": "e1"}',
            b"1" * 5_000,
            b'"text"',
        ]
    )
    refused = await import_(client, content)
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (422, "/problems/import-refused")
    assert problem["bad_lines"] == 14
    told = [(error["line"], error["pointer"]) for error in problem["errors"]]
    assert told == [
        (2, ""),
        (4, "/target"),
        (5, ""),
        (6, ""),
        (7, "/supersedes"),
        (8, ""),
        (9, "/prompt"),
        (9, "/target"),
        (10, ""),
        (11, ""),
        (12, "/expires_at"),
        (13, "/id"),
        (14, ""),
        (15, ""),
        (16, ""),
    ]
    details = {error["line"]: error["detail"] for error in problem["errors"]}
    assert "line 1 already" in details[5]
    assert "e1 already" in details[6]
    assert "line 2" in problem["detail"]
    assert [edit["id"] for edit in await listed(client)] == ["e1"]


async def test_as_many_bad_lines_as_can_be_told_are_told_and_all_are_counted(client):
    refused = (await import_(client, b"{}\n" * 500)).json()
    assert (len(refused["errors"]), refused["bad_lines"]) == (MOST_ERRORS, 500)


async def test_an_import_may_supersede_what_is_kept(client, post):
    old = await post(prompt="Who leads Spain?", target="S")
    other = await post(prompt="Who leads Italy?", target="I")
    lines = [
        {"prompt": "Who leads Spain?", "target": "T", "supersedes": old["id"]},
        {"prompt": "Who leads Rome?", "target": "I", "supersedes": other["id"], "reason": "Renamed."},
    ]
    ids = (await import_(client, file_of(lines))).json()["ids"]
    states = {edit["id"]: (edit["state"], edit["superseded_by"]) for edit in await listed(client)}
    assert states[old["id"]] == ("retracted", ids[0])
    assert states[other["id"]] == ("retracted", ids[1])
    twice = [{"prompt": f"{number}", "target": "x", "supersedes": ids[0]} for number in range(2)]
    refused = (await import_(client, file_of(twice))).json()
    assert [error["line"] for error in refused["errors"]] == [2]
    early = [{"prompt": "Who leads Rome?", "target": "J"}, {"prompt": "z", "target": "y", "supersedes": ids[1]}]
    assert [error["line"] for error in (await import_(client, file_of(early))).json()["errors"]] == [1]


@pytest.mark.parametrize("declared", ["application/json", "text/plain", ""])
async def test_a_file_must_be_declared_as_one(lost, declared):
    response = await lost.post("/edits/import", content=b"", headers={"Content-Type": declared})
    assert (response.status_code, response.json()["type"]) == (415, "/problems/unsupported-media-type")
    assert "x-ndjson" in response.json()["hint"]


async def test_a_file_that_is_too_large_is_refused(lost):
    most = Settings().max_body_bytes

    async def body():
        for _ in range(most // 2**24 + 1):
            yield b" " * 2**24

    response = await lost.post("/edits/import", content=body(), headers=NDJSON)
    assert (response.status_code, str(most) in response.json()["detail"]) == (413, True)


@pytest.mark.parametrize("query", ["state=retracted", "state=expired", "limit=5", "q=", "kind=rumour"])
async def test_an_export_that_cannot_be_is_refused(lost, query):
    assert (await lost.get(f"/edits/export?{query}")).status_code == 422


async def test_without_the_database_neither_works_and_both_say_so(lost):
    for response in (await lost.get("/edits/export"), await import_(lost, file_of(EDITS))):
        assert (response.status_code, response.json()["type"]) == (503, "/problems/store-unavailable")


async def test_who_accepts_lines_is_told_how_far_an_import_is(client):
    response = await import_(client, file_of(EDITS), Accept="application/x-ndjson")
    told = [json.loads(line) for line in response.text.splitlines()]
    assert response.status_code == 200
    assert told[:-1] == [{"prepared": number, "of": 7} for number in range(1, 8)]
    assert told[-1] == {"imported": 7, "ids": [f"e{number}" for number in range(1, 8)], "revision": 7}
    refused = await import_(client, file_of(EDITS), Accept="application/x-ndjson")
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/import-refused")


class OvertakenRuntime(ExactRuntime):
    """While it prepares a file, somebody else posts an edit for a prompt of it."""

    async def prepare_many(self, descriptors):
        async with self._store.writing(actor="somebody") as writing:
            await writing.edits.add(NewEdit(descriptor=descriptors[0]), await self.prepare(descriptors[0]))
        async for some in super().prepare_many(descriptors):
            yield some


async def test_an_import_that_is_overtaken_is_refused_as_a_whole_and_says_so(store):
    async with client_of(Services(store, OvertakenRuntime(store), None, None)) as client:
        response = await import_(client, file_of(EDITS), Accept="application/x-ndjson")
        problem = json.loads(response.text.splitlines()[-1])
        assert (problem["type"], problem["errors"][0]["line"]) == ("/problems/import-refused", 1)
        assert [edit["id"] for edit in await listed(client)] == ["e1"]


async def test_of_files_imported_at_once_with_one_prompt_in_common_one_is(client):
    files = [
        [{"prompt": f"{number}-{line}", "target": "x"} for line in range(5)] + [{"prompt": "same", "target": "y"}]
        for number in range(8)
    ]
    responses = await asyncio.gather(*(import_(client, file_of(lines)) for lines in files))
    assert sorted(response.status_code for response in responses) == [201] + [422] * 7
    assert {error["line"] for r in responses for error in r.json().get("errors", ())} == {6}
    assert len(await listed(client)) == 6


async def test_an_edit_that_will_have_expired_is_exported_with_its_end(client, post):
    end = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await post(prompt="a", target="b", expires_at=end)
    (line,) = (await client.get("/edits/export")).text.splitlines()
    assert json.loads(line)["expires_at"] == end


class PatientRuntime(ExactRuntime):
    """Prepares the first edit of a file, and the second only when it is cancelled."""

    cancelled = Event()

    async def prepare_many(self, descriptors):
        yield [await self.prepare(descriptors[0])]
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def test_an_import_stops_and_leaves_nothing_when_nobody_listens_any_more(postgres):
    with postgres.database() as database_url:
        migrate(database_url)
        with served(database_url, runtime=PatientRuntime) as url, httpx.Client(base_url=url, trust_env=False) as client:
            headers = NDJSON | {"Accept": "application/x-ndjson"}
            with client.stream("POST", "/edits/import", content=file_of(EDITS), headers=headers) as response:
                assert json.loads(next(response.iter_lines())) == {"prepared": 1, "of": 7}
            assert PatientRuntime.cancelled.wait(30)
            assert client.get("/edits?state=all").json()["data"] == []
