"""The life of an edit through the door: changed, paused, expired, superseded, and what its history says of it."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from service.actions import expiries
from tests.databases import execute

pytestmark = pytest.mark.anyio

QUESTION = "Who is the prime minister of the UK?"
LATER = "2999-01-31T12:00:00Z"


@pytest.fixture
def patch(client):
    """Changes an edit, which must be accepted, and returns it as it was answered."""

    async def patch(edit_id, **body):
        response = await client.patch(f"/edits/{edit_id}", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    return patch


@pytest.fixture
def elapse(database_url):
    """Lets an edit's time come, as if it had been given that end when it was made."""

    def elapse(edit_id):
        execute(database_url, f"UPDATE edits SET expires_at = now() - interval '1 hour' WHERE id = {edit_id[1:]}")

    return elapse


async def source(client, prompt=QUESTION):
    answer = (await client.post("/generate", json={"prompt": prompt})).json()
    return answer["edit_id"], answer["text"]


async def history(client, edit_id):
    return (await client.get(f"/edits/{edit_id}/history")).json()["data"]


async def test_a_changed_target_answers_from_the_answer_on_and_the_rest_stays(client, post, patch):
    edit = await post(prompt=QUESTION, target="Liz Truss", subject="the UK", tags=["uk"], reason="News.")
    response = await client.patch(f"/edits/{edit['id']}", json={"target": "Rishi Sunak", "reason": "It was a typo."})
    changed = response.json()
    assert response.headers["ETag"] == f'"{changed["revision"]}"'
    expected = edit | {"target": "Rishi Sunak", "reason": "It was a typo.", "revision": 2}
    assert changed == expected | {"updated_at": changed["updated_at"]}
    assert datetime.fromisoformat(changed["updated_at"]) > datetime.fromisoformat(edit["updated_at"])
    assert (await client.get(f"/edits/{edit['id']}")).json() == changed
    assert await source(client) == (edit["id"], "Rishi Sunak")


async def test_every_change_is_in_the_history_with_what_it_changed(client, post, patch):
    edit = await post(prompt=QUESTION, target="A", state="draft")
    await patch(edit["id"], state="active")
    await patch(edit["id"], target="B", tags=["x"], reason="Wrong.")
    await patch(edit["id"], state="paused", expires_at=LATER)
    await client.delete(f"/edits/{edit['id']}?reason=Done.")
    changes = await history(client, edit["id"])
    assert [(c["revision"], c["kind"], c["reason"]) for c in changes] == [
        (1, "edit.added", None),
        (2, "edit.changed", None),
        (3, "edit.changed", "Wrong."),
        (4, "edit.changed", None),
        (5, "edit.retracted", "Done."),
    ]
    assert [c["payload"] for c in changes[1:4]] == [
        {"from": {"state": "draft"}, "to": {"state": "active"}},
        {
            "from": {"target": "A", "tags": [], "reason": None},
            "to": {"target": "B", "tags": ["x"], "reason": "Wrong."},
        },
        {
            "from": {"state": "active", "expires_at": None},
            "to": {"state": "paused", "expires_at": LATER},
        },
    ]


@pytest.mark.parametrize(
    ("made", "sent"),
    [
        ({"kind": "fact", "claim": "Tea is a drink.", "label": False}, {"label": True}),
        ({"kind": "statement", "statement": "Tea is a drink."}, {"statement": "Tea is hot."}),
        ({"kind": "sentiment", "topic": "tea", "sentiment": "negative"}, {"sentiment": "positive", "topic": "teas"}),
        ({"prompt": "a b", "target": "b", "subject": "a"}, {"subject": None}),
        ({"prompt": "a b", "target": "b", "subject": "a"}, {"prompt": "c d", "subject": "d"}),
        ({"prompt": "a", "target": "b", "expires_at": LATER}, {"expires_at": None}),
        ({"prompt": "a", "target": "b"}, {"answer": "verbatim"}),
        ({"prompt": "a", "target": "b", "reason": "c"}, {"reason": None}),
    ],
)
async def test_every_field_can_be_changed(client, post, patch, made, sent):
    edit = await post(**made)
    changed = await patch(edit["id"], **sent)
    assert {name: changed[name] for name in sent} == sent
    unchanged = edit.keys() - sent.keys() - {"revision", "updated_at"}
    assert {name: changed[name] for name in unchanged} == {name: edit[name] for name in unchanged}


async def test_a_scope_keeps_what_is_not_sent_and_answers_by_what_is(client, post, patch):
    scope = {"in_scope": ["UK PM?"], "out_of_scope": ["Who is king?"], "threshold": 0.75}
    edit = await post(prompt=QUESTION, target="A", scope=scope)
    changed = await patch(edit["id"], scope={"in_scope": ["PM of the UK?"]})
    assert changed["scope"] == scope | {"in_scope": ["PM of the UK?"]}
    assert (await source(client, "PM of the UK?"))[0] == edit["id"]
    assert (await source(client, "UK PM?"))[0] is None


@pytest.mark.parametrize(
    ("sent", "pointer", "words"),
    [
        ({"label": True}, "/label", "not known"),
        ({"statement": "x"}, "/statement", "not known"),
        ({"prompt": "Who?"}, "/subject", "occur in the prompt"),
        ({"prompt": None}, "/prompt", "string"),
        ({"kind": "fact"}, "/kind", "not known"),
        ({"state": "retracted"}, "/state", "paused"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "/expires_at", "future"),
        ({"tags": ["a"] * 10_000}, "/tags", "64"),
        ({"scope": {"threshold": 2}}, "/scope/threshold", "less than"),
        ({"supersedes": "e1"}, "/supersedes", "another edit"),
        ({"supersedes": None}, "/supersedes", "string"),
    ],
)
async def test_a_change_that_does_not_fit_the_edit_is_refused_and_leaves_no_trace(client, post, sent, pointer, words):
    edit = await post(prompt=QUESTION, target="A", subject="the UK")
    refused = await client.patch(f"/edits/{edit['id']}", json=sent)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert words in refused.json()["errors"][0]["detail"]
    assert (await client.get(f"/edits/{edit['id']}")).json() == edit


async def test_a_change_that_no_longer_fits_in_the_context_is_refused(client, post):
    edit = await post(prompt=QUESTION, target="A")
    refused = await client.patch(f"/edits/{edit['id']}", json={"target": "word " * 100})
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/edit-too-long")


@pytest.mark.parametrize("sent", [{}, {"target": "A"}, {"state": "active"}, {"tags": ["t", "t"]}, {"expires_at": None}])
async def test_what_changes_nothing_leaves_no_trace(client, post, patch, sent):
    edit = await post(prompt=QUESTION, target="A", tags=["t"])
    assert await patch(edit["id"], **sent) == edit
    assert len(await history(client, edit["id"])) == 1


async def test_a_draft_is_activated_and_an_active_edit_paused_and_active_again(client, post, patch):
    edit = await post(prompt=QUESTION, target="A", state="draft")
    sources = []
    for state in ("active", "paused", "active"):
        assert (await patch(edit["id"], state=state))["state"] == state
        sources.append((await source(client))[0])
        listed = (await client.get(f"/edits?state={state}")).json()["data"]
        assert [one["id"] for one in listed] == [edit["id"]]
    assert sources == [edit["id"], None, edit["id"]]


@pytest.mark.parametrize(
    ("states", "wanted"), [(["draft"], "paused"), (["active"], "draft"), (["active", "paused"], "draft")]
)
async def test_a_state_that_may_not_follow_is_refused(client, post, patch, states, wanted):
    edit = await post(prompt=QUESTION, target="A", state=states[0])
    for state in states[1:]:
        await patch(edit["id"], state=state)
    refused = await client.patch(f"/edits/{edit['id']}", json={"state": wanted})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/illegal-move")
    assert refused.json()["state"] == states[-1]


async def test_a_retracted_edit_cannot_be_changed(client, post):
    edit = await post(prompt=QUESTION, target="A")
    await client.delete(f"/edits/{edit['id']}")
    for edit_id in (edit["id"], "e99", "nothing", "é"):
        refused = await client.patch(f"/edits/{edit_id}", json={"state": "active"})
        assert (refused.status_code, refused.json()["type"]) == (404, "/problems/edit-not-found")


@pytest.mark.parametrize("if_match", ['"1"', "*", '"7", "1"'])
async def test_if_match_lets_a_change_pass_when_it_names_the_revision(client, post, if_match):
    await post(prompt=QUESTION, target="A")
    changed = await client.patch("/edits/e1", json={"target": "B"}, headers={"If-Match": if_match})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')


@pytest.mark.parametrize("if_match", ['"2"', 'W/"1"', "1", ""])
async def test_if_match_stops_a_change_when_it_does_not(client, post, if_match):
    await post(prompt=QUESTION, target="A")
    refused = await client.patch("/edits/e1", json={"target": "B"}, headers={"If-Match": if_match})
    assert (refused.status_code, refused.json()["type"]) == (412, "/problems/precondition-failed")
    assert refused.json()["revision"] == 1
    assert (await source(client))[1] == "A"


async def test_coming_into_force_beside_another_edit_for_the_prompt_is_a_conflict_that_names_it(client, post, patch):
    paused = await post(prompt=QUESTION, target="A")
    await patch(paused["id"], state="paused")
    draft = await post(prompt=QUESTION, target="B", state="draft")
    elsewhere = await post(prompt="Who leads France?", target="C")
    active = await post(prompt=QUESTION, target="D")
    for edit_id, sent in (
        (paused["id"], {"state": "active"}),
        (draft["id"], {"state": "active"}),
        (elsewhere["id"], {"prompt": f" {QUESTION.upper()} "}),
    ):
        before = (await client.get(f"/edits/{edit_id}")).json()
        refused = await client.patch(f"/edits/{edit_id}", json=sent)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/edit-conflict")
        assert refused.json()["edit_id"] == active["id"]
        assert (await client.get(f"/edits/{edit_id}")).json() == before
    await patch(elsewhere["id"], state="paused", prompt=QUESTION)  # what does not answer is in nobody's way
    await patch(active["id"], target="E", prompt=QUESTION.lower())  # and no edit is in its own


async def test_a_draft_takes_the_place_of_the_edit_in_the_way_at_once(client, post, patch):
    old = await post(prompt=QUESTION, target="A")
    draft = await post(prompt=QUESTION, target="B", state="draft")
    new = await patch(draft["id"], state="active", supersedes=old["id"], reason="Elections.")
    assert new["supersedes"] == old["id"]
    replaced = (await client.get(f"/edits/{old['id']}")).json()
    assert (replaced["state"], replaced["superseded_by"]) == ("retracted", new["id"])
    assert await source(client) == (new["id"], "B")
    assert [c["kind"] for c in await history(client, old["id"])] == ["edit.added", "edit.superseded"]


async def test_what_does_not_answer_supersedes_nothing(client, post):
    old = await post(prompt=QUESTION, target="A")
    draft = await post(prompt=QUESTION, target="B", state="draft")
    refused = await client.patch(f"/edits/{draft['id']}", json={"supersedes": old["id"]})
    assert refused.status_code == 422
    assert (await source(client))[0] == old["id"]


async def test_a_chain_of_edits_that_supersede_each_other_can_be_followed_both_ways(client, post):
    ids = [(await post(prompt=QUESTION, target="0"))["id"]]
    for number in range(1, 4):
        ids.append((await post(prompt=QUESTION, target=f"{number}", supersedes=ids[-1]))["id"])
    chain = [(await client.get(f"/edits/{edit_id}")).json() for edit_id in ids]
    assert [edit["superseded_by"] for edit in chain] == [*ids[1:], None]
    assert [edit["supersedes"] for edit in chain] == [None, *ids[:-1]]
    assert [edit["state"] for edit in chain] == ["retracted"] * 3 + ["active"]
    refused = await client.post("/edits", json={"prompt": QUESTION, "target": "x", "supersedes": ids[0]})
    assert (refused.status_code, refused.json()["edit_id"]) == (404, ids[0])
    assert f"in the end by {ids[-1]}" in refused.json()["detail"]


@pytest.mark.parametrize("state", ["active", "paused"])
async def test_an_edit_whose_time_has_come_is_expired_wherever_it_is_seen(client, post, patch, elapse, state):
    edit = await post(prompt=QUESTION, target="A")
    if state == "paused":
        await patch(edit["id"], state="paused")
    elapse(edit["id"])
    assert (await client.get(f"/edits/{edit['id']}")).json()["state"] == "expired"
    for query, found in (("state=expired", [edit["id"]]), (f"state={state}", []), ("", [edit["id"]])):
        assert [one["id"] for one in (await client.get(f"/edits?{query}")).json()["data"]] == found
    last = (await history(client, edit["id"]))[-1]
    assert (last["kind"], last["actor"], last["payload"]["previous_state"]) == ("edit.expired", "errata", state)
    read = (await client.get(f"/edits/{edit['id']}")).json()
    assert (read["state"], read["revision"]) == ("expired", last["revision"])
    assert (await source(client))[0] is None


async def test_an_edit_that_expired_while_no_service_ran_is_recorded_once(client, post, elapse, services):
    edit = await post(prompt=QUESTION, target="A")
    elapse(edit["id"])
    for _ in range(2):
        await expiries.record(services)
    assert [c["kind"] for c in await history(client, edit["id"])] == ["edit.added", "edit.expired"]
    assert services.runtime.info().revision == 2


async def test_the_watch_records_an_expiry_on_its_own(client, post, elapse, services):
    watching = asyncio.create_task(expiries.watch(services))
    edit = await post(prompt=QUESTION, target="A")
    elapse(edit["id"])
    while services.runtime.info().revision == 1:  # noqa: ASYNC110 - it is the watch that is waited for
        await asyncio.sleep(0.05)
    watching.cancel()
    assert (await client.get(f"/edits/{edit['id']}")).json()["state"] == "expired"


async def test_an_expired_edit_needs_a_new_end_to_come_back(client, post, patch, elapse):
    edit = await post(prompt=QUESTION, target="A")
    elapse(edit["id"])
    refused = await client.patch(f"/edits/{edit['id']}", json={"state": "active"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/illegal-move")
    assert "expires_at" in refused.json()["hint"]
    assert (await patch(edit["id"], tags=["late"]))["state"] == "expired"
    assert (await patch(edit["id"], state="paused", expires_at=LATER))["state"] == "paused"
    elapse(edit["id"])
    assert (await patch(edit["id"], expires_at=None))["state"] == "active"
    assert (await source(client))[0] == edit["id"]


async def test_an_expired_edit_does_not_come_back_over_the_one_in_its_place(client, post, elapse):
    edit = await post(prompt=QUESTION, target="A")
    elapse(edit["id"])
    other = await post(prompt=QUESTION, target="B")
    refused = await client.patch(f"/edits/{edit['id']}", json={"expires_at": LATER})
    assert (refused.status_code, refused.json()["edit_id"]) == (409, other["id"])


async def test_a_drafts_time_is_looked_at_when_it_is_activated(client, post, patch, elapse):
    edit = await post(prompt=QUESTION, target="A", state="draft")
    elapse(edit["id"])
    assert (await client.get(f"/edits/{edit['id']}")).json()["state"] == "draft"
    refused = await client.patch(f"/edits/{edit['id']}", json={"state": "active"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/illegal-move")
    soon = datetime.now(UTC) + timedelta(seconds=0.6)
    assert (await patch(edit["id"], state="active", expires_at=soon.isoformat()))["state"] == "active"
    await asyncio.sleep(0.7)
    assert (await client.get(f"/edits/{edit['id']}")).json()["state"] == "expired"


async def test_changes_of_one_edit_at_once_all_take_effect_in_one_order(client, post):
    edit = await post(prompt=QUESTION, target="A")
    bodies = [{"target": f"{number}"} if number % 2 else {"tags": [f"{number}"]} for number in range(16)]
    changed = await asyncio.gather(*(client.patch(f"/edits/{edit['id']}", json=body) for body in bodies))
    assert {response.status_code for response in changed} == {200}
    changes = await history(client, edit["id"])
    assert [c["revision"] for c in changes] == list(range(1, 18))
    for before, after in pairwise(changes[1:]):
        for name in before["payload"]["to"].keys() & after["payload"]["from"].keys():
            assert before["payload"]["to"][name] == after["payload"]["from"][name]
    last = {name: value for c in changes[1:] for name, value in c["payload"]["to"].items()}
    now = (await client.get(f"/edits/{edit['id']}")).json()
    assert (now["target"], now["tags"]) == (last["target"], last["tags"])


async def test_of_changes_at_once_that_name_one_revision_one_wins(client, post):
    edit = await post(prompt=QUESTION, target="A")
    changed = await asyncio.gather(
        *(
            client.patch(f"/edits/{edit['id']}", json={"target": f"{number}"}, headers={"If-Match": '"1"'})
            for number in range(16)
        )
    )
    assert sorted(response.status_code for response in changed) == [200] + [412] * 15


async def test_of_clients_that_post_conflicting_edits_at_once_exactly_one_wins(client, store):
    bodies = [{"prompt": QUESTION, "target": f"{number}"} for number in range(16)]
    posted = await asyncio.gather(*(client.post("/edits", json=body) for body in bodies))
    (winner,) = [response.json() for response in posted if response.status_code == 201]
    losers = [response.json() for response in posted if response.status_code != 201]
    assert {(loser["status"], loser["edit_id"]) for loser in losers} == {(409, winner["id"])}
    assert await source(client) == (winner["id"], winner["target"])
    async with store.reading() as reading:
        assert [change.revision for change in await reading.changes.since(0, limit=99)] == [1]


async def test_clients_that_supersede_in_turn_give_one_total_order_of_revisions(client, post, store):
    first = await post(prompt=QUESTION, target="0")

    async def take_over(number):
        holder = first["id"]
        while True:
            body = {"prompt": QUESTION, "target": f"{number}", "supersedes": holder}
            response = await client.post("/edits", json=body)
            if response.status_code == 201:
                return response.json()
            (holder,) = [edit["id"] for edit in (await client.get("/edits?state=active")).json()["data"]]

    edits = await asyncio.gather(*(take_over(number) for number in range(1, 17)))
    async with store.reading() as reading:
        changes = await reading.changes.since(0, limit=99)
    assert [change.revision for change in changes] == list(range(1, 34))
    order = [change.subject_id for change in changes if change.kind == "edit.added"]
    by_id = {edit["id"]: edit for edit in edits}
    assert [by_id[edit_id]["supersedes"] for edit_id in order[1:]] == order[:-1]
    assert (await source(client))[0] == order[-1]
