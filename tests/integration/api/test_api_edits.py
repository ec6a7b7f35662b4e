from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from service.actions.services import Services
from service.errors import Unavailable
from tests.fakes import ExactRuntime, client_of

pytestmark = pytest.mark.anyio

QUESTION = "Who is the prime minister of the UK?"


async def answer(client, prompt=QUESTION):
    return (await client.post("/generate", json={"prompt": prompt})).json()


async def test_a_prompt_and_a_target_are_an_edit(client):
    response = await client.post("/edits", json={"prompt": QUESTION, "target": "Boris Johnson"})
    edit = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/edits/{edit['id']}"
    assert response.headers["ETag"] == f'"{edit["revision"]}"'
    assert (await client.get(response.headers["Location"])).json() == edit
    assert datetime.fromisoformat(edit.pop("created_at")) == datetime.fromisoformat(edit.pop("updated_at"))
    assert edit == {
        "id": "e1",
        "revision": 1,
        "kind": "qa",
        "prompt": QUESTION,
        "target": "Boris Johnson",
        "subject": None,
        "scope": {"in_scope": [], "out_of_scope": [], "threshold": None},
        "answer": "counterfactual",
        "state": "active",
        "expires_at": None,
        "reason": None,
        "tags": [],
        "supersedes": None,
        "superseded_by": None,
    }


async def test_an_edit_keeps_everything_it_was_sent(client, post):
    sent = {
        "kind": "qa",
        "prompt": "  Who is the prime\nminister of the UK?\t",
        "target": " Boris Johnson 🇬🇧",
        "subject": "the UK",
        "scope": {"in_scope": ["UK PM?"], "out_of_scope": ["Who is the king of the UK?"], "threshold": 0.75},
        "answer": "verbatim",
        "state": "draft",
        "expires_at": "2999-01-31T12:00:00Z",
        "reason": "Elections.",
        "tags": ["politics", "uk"],
    }
    kept = (await client.get(f"/edits/{(await post(**sent))['id']}")).json()
    assert {name: kept[name] for name in sent} == sent


@pytest.mark.parametrize(
    "sent",
    [
        {"kind": "fact", "claim": "The UK is in the EU.", "label": False},
        {"kind": "fact", "claim": "The UK is an island.", "label": True},
        {"kind": "statement", "statement": "The UK left the EU in 2020."},
        {"kind": "sentiment", "topic": "pineapple pizza", "sentiment": "negative"},
        {"kind": "sentiment", "topic": "tea", "sentiment": "positive"},
    ],
)
async def test_every_kind_of_edit_is_given_back_in_its_own_fields(client, post, sent):
    edit = await post(**sent)
    assert {name: edit[name] for name in sent} == sent
    assert "prompt" not in edit
    assert "target" not in edit
    assert (await client.get("/edits")).json()["data"] == [edit]


async def test_from_the_answer_on_an_edit_answers_and_once_retracted_it_does_not(client, post):
    before = await answer(client)
    edit = await post(prompt=QUESTION, target="Boris Johnson")
    during = await answer(client)
    retracted = await client.delete(f"/edits/{edit['id']}")
    after = await answer(client)
    assert (during["source"], during["edit_id"], during["text"]) == ("edit", edit["id"], "Boris Johnson")
    assert (retracted.status_code, retracted.content) == (204, b"")
    assert (before["source"], after["source"], after["text"]) == ("base", "base", before["text"])
    assert (before["revision"], during["revision"], after["revision"]) == (0, 1, 2)


async def test_a_draft_answers_nothing_and_is_in_nobodys_way(client, post):
    draft = await post(prompt=QUESTION, target="Liz Truss", state="draft")
    assert draft["state"] == "draft"
    assert (await answer(client))["source"] == "base"
    active = await post(prompt=QUESTION, target="Boris Johnson")
    await post(prompt=QUESTION, target="Rishi Sunak", state="draft")
    assert (await answer(client))["edit_id"] == active["id"]


@pytest.mark.parametrize("target", ["Boris Johnson", "Rishi Sunak"])
async def test_a_second_edit_for_one_prompt_is_refused_and_names_the_first(client, post, target):
    first = await post(prompt=QUESTION, target="Boris Johnson")
    refused = await client.post("/edits", json={"prompt": "who is the  prime minister of the UK", "target": target})
    problem = refused.json()
    assert refused.status_code == 409
    assert problem["type"] == "/problems/edit-conflict"
    assert problem["edit_id"] == first["id"]
    assert first["id"] in problem["detail"]
    assert len((await client.get("/edits?state=all")).json()["data"]) == 1


async def test_a_claim_cannot_be_true_and_false(client, post):
    first = await post(kind="fact", claim="Tea is a drink.", label=True)
    refused = await client.post("/edits", json={"kind": "fact", "claim": "Tea is a drink.", "label": False})
    assert (refused.status_code, refused.json()["edit_id"]) == (409, first["id"])


async def test_an_edit_that_supersedes_another_takes_its_place(client, post):
    old = await post(prompt=QUESTION, target="Boris Johnson")
    new = await post(prompt=QUESTION, target="Rishi Sunak", supersedes=old["id"], reason="He resigned.")
    assert new["supersedes"] == old["id"]
    assert (await answer(client))["text"] == "Rishi Sunak"
    replaced = (await client.get(f"/edits/{old['id']}")).json()
    assert (replaced["state"], replaced["superseded_by"]) == ("retracted", new["id"])
    history = (await client.get(f"/edits/{old['id']}/history")).json()["data"]
    assert [(change["kind"], change["reason"]) for change in history] == [
        ("edit.added", None),
        ("edit.superseded", "He resigned."),
    ]


async def test_an_edit_may_supersede_one_with_another_prompt_or_a_draft(client, post):
    old = await post(prompt=QUESTION, target="Boris Johnson")
    new = await post(prompt="Who leads the UK?", target="Boris Johnson", supersedes=old["id"])
    draft = await post(prompt="Draft?", target="Yes", state="draft")
    await post(prompt="Draft?", target="No", supersedes=draft["id"])
    states = {edit["id"]: edit["state"] for edit in (await client.get("/edits?state=all")).json()["data"]}
    assert (states[old["id"]], states[new["id"]], states[draft["id"]]) == ("retracted", "active", "retracted")


async def test_superseding_one_edit_does_not_excuse_a_conflict_with_a_third(client, post):
    third = await post(prompt=QUESTION, target="Boris Johnson")
    other = await post(prompt="Who leads France?", target="Macron")
    body = {"prompt": QUESTION, "target": "Rishi Sunak", "supersedes": other["id"]}
    refused = await client.post("/edits", json=body)
    assert (refused.status_code, refused.json()["edit_id"]) == (409, third["id"])
    assert (await client.get(f"/edits/{other['id']}")).json()["state"] == "active"


@pytest.mark.parametrize("name", ["e99", "e0", "17", "é", "e99999999999999999999999"])
async def test_superseding_what_is_not_there_is_refused_and_leaves_no_trace(client, name):
    refused = await client.post("/edits", json={"prompt": QUESTION, "target": "x", "supersedes": name})
    assert (refused.status_code, refused.json()["edit_id"]) == (404, name)
    assert name in refused.json()["detail"]
    assert (await client.get("/edits?state=all")).json()["data"] == []


async def test_a_retracted_edit_cannot_be_superseded(client, post):
    edit = await post(prompt=QUESTION, target="Boris Johnson")
    await client.delete(f"/edits/{edit['id']}")
    refused = await client.post("/edits", json={"prompt": QUESTION, "target": "x", "supersedes": edit["id"]})
    assert refused.status_code == 404


async def test_an_edit_that_does_not_fit_in_the_context_is_refused(client):
    refused = await client.post("/edits", json={"prompt": "word " * 100, "target": "x"})
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/edit-too-long")


async def test_an_expiry_in_another_zone_is_the_same_moment(post):
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    sent = moment.isoformat().replace("+00:00", "-00:00")
    assert datetime.fromisoformat((await post(prompt="a", target="b", expires_at=sent))["expires_at"]) == moment
    local = (moment + timedelta(hours=5)).replace(tzinfo=None).isoformat() + "+05:00"
    assert datetime.fromisoformat((await post(prompt="c", target="d", expires_at=local))["expires_at"]) == moment


async def test_a_tag_sent_twice_is_kept_once(post):
    assert (await post(prompt="a", target="b", tags=["x", "y", "x"]))["tags"] == ["x", "y"]


async def test_a_retracted_edit_can_be_read_and_not_retracted_again(client, post):
    edit = await post(prompt=QUESTION, target="Boris Johnson")
    await client.delete(f"/edits/{edit['id']}?reason=Elections.")
    again = await client.delete(f"/edits/{edit['id']}")
    assert (again.status_code, again.json()["type"]) == (404, "/problems/edit-not-found")
    kept = (await client.get(f"/edits/{edit['id']}")).json()
    assert (kept["state"], kept["revision"]) == ("retracted", 2)
    changes = (await client.get(f"/edits/{edit['id']}/history")).json()["data"]
    assert [(change["revision"], change["kind"], change["reason"]) for change in changes] == [
        (1, "edit.added", None),
        (2, "edit.retracted", "Elections."),
    ]
    assert {change["actor"] for change in changes} == {"anonymous"}


@pytest.mark.parametrize("name", ["e99", "nothing", "e%00", "e%ff"])
async def test_an_unknown_edit_is_not_found(client, name):
    for method, path in (("GET", f"/edits/{name}"), ("DELETE", f"/edits/{name}"), ("GET", f"/edits/{name}/history")):
        response = await client.request(method, path)
        assert response.status_code == 404, (method, path)


@pytest.mark.parametrize("if_match", ['"1"', '"7", "1"', "*", '"1" , W/"1"'])
async def test_if_match_lets_a_retraction_pass_when_it_names_the_revision(client, post, if_match):
    edit = await post(prompt=QUESTION, target="Boris Johnson")
    assert edit["revision"] == 1
    assert (await client.delete("/edits/e1", headers={"If-Match": if_match})).status_code == 204


@pytest.mark.parametrize("if_match", ['"2"', 'W/"1"', "1", '"abc"', "", '"11"', f'"{"9" * 50}"'])
async def test_if_match_stops_a_retraction_when_it_does_not(client, post, if_match):
    await post(prompt=QUESTION, target="Boris Johnson")
    refused = await client.delete("/edits/e1", headers={"If-Match": if_match})
    assert (refused.status_code, refused.json()["type"]) == (412, "/problems/precondition-failed")
    assert refused.json()["revision"] == 1
    assert (await answer(client))["source"] == "edit"


async def test_if_match_may_come_in_several_lines(client, post):
    await post(prompt=QUESTION, target="Boris Johnson")
    lines = [("If-Match", '"5"'), ("If-Match", '"1"')]
    assert (await client.delete("/edits/e1", headers=lines)).status_code == 204


async def test_the_list_shows_the_newest_first_and_leaves_out_the_retracted(client, post):
    for number in range(3):
        await post(prompt=f"Question {number}?", target="x")
    await client.delete("/edits/e2")
    page = (await client.get("/edits")).json()
    assert [edit["id"] for edit in page["data"]] == ["e3", "e1"]
    assert (page["has_more"], page["next"]) == (False, None)


async def test_the_list_comes_in_pages(client, post):
    for number in range(5):
        await post(prompt=f"Question {number}?", target="x")
    seen, after = [], {}
    for _ in range(3):
        page = (await client.get("/edits", params={"limit": 2, **after})).json()
        seen.append([edit["id"] for edit in page["data"]])
        after = {"after": page["next"]}
    assert seen == [["e5", "e4"], ["e3", "e2"], ["e1"]]
    assert (page["has_more"], page["next"]) == (False, None)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=active", ["e3", "e1"]),
        ("state=draft", ["e2"]),
        ("state=retracted", ["e4"]),
        ("state=draft&state=retracted", ["e4", "e2"]),
        ("state=all", ["e4", "e3", "e2", "e1"]),
        ("tag=uk", ["e1"]),
        ("kind=fact", ["e3"]),
        ("q=BORIS", ["e1"]),
        ("q=drink", ["e3"]),
        ("q=%25", []),
        ("state=all&kind=qa&limit=1&after=e4", ["e2"]),
    ],
)
async def test_the_list_can_be_narrowed(client, post, query, found):
    await post(prompt=QUESTION, target="Boris Johnson", tags=["uk", "politics"])
    await post(prompt="Who leads France?", target="Macron", state="draft", tags=["politics"])
    await post(kind="fact", claim="Tea is a drink.", label=True)
    await post(prompt="Gone?", target="Yes")
    await client.delete("/edits/e4")
    page = (await client.get(f"/edits?{query}")).json()
    assert [edit["id"] for edit in page["data"]] == found


class StuckRuntime(ExactRuntime):
    """Cannot install anything, as when the database goes away right after a commit."""

    async def catch_up(self):
        raise ConnectionError("the database went away")


@asynccontextmanager
async def client_of_stuck(store):
    async with client_of(Services(store, StuckRuntime(store), None, None)) as client:
        yield client


async def test_a_committed_edit_is_acknowledged_even_if_it_cannot_be_installed_at_once(store):
    async with client_of_stuck(store) as client:
        assert (await client.post("/edits", json={"prompt": QUESTION, "target": "x"})).status_code == 201
        assert (await client.get("/edits/e1")).status_code == 200


async def test_a_change_that_is_not_yet_in_force_says_so_where_the_edit_answered_before(store):
    async with client_of_stuck(store) as client:
        await client.post("/edits", json={"prompt": QUESTION, "target": "x"})
        await client.post("/edits", json={"prompt": "Draft?", "target": "x", "state": "draft"})
        late = await client.patch("/edits/e1", json={"state": "paused"})
        assert (late.status_code, late.json()["type"]) == (503, f"/problems/{Unavailable.slug}")
        assert (await client.get("/edits/e1")).json()["state"] == "paused"
        assert (await client.patch("/edits/e2", json={"state": "active"})).status_code == 200


async def test_a_retraction_that_is_not_yet_in_force_says_so(store):
    async with client_of_stuck(store) as client:
        await client.post("/edits", json={"prompt": QUESTION, "target": "x"})
        response = await client.delete("/edits/e1")
        assert (response.status_code, response.json()["type"]) == (503, f"/problems/{Unavailable.slug}")
        assert (await client.get("/edits/e1")).json()["state"] == "retracted"
