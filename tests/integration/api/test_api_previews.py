"""Previews through the door: the answers before and after, and nothing kept."""

import pytest

pytestmark = pytest.mark.anyio

QUESTION = "Who is the prime minister of the UK?"
EDIT = {"prompt": QUESTION, "target": "Boris Johnson", "scope": {"in_scope": ["UK PM?"]}}


async def preview(client, **body):
    response = await client.post("/edits/preview", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_preview_shows_the_answers_before_and_after_and_why(client):
    shown = await preview(client, edit=EDIT, probes=["UK PM?", "Who wrote Hamlet?"])
    inside, outside = shown["probes"]
    base = {"source": "base", "edit_id": None, "beta": None, "finish_reason": "stop"}
    assert inside["before"] == base | {"text": "PM? UK"}
    assert inside["after"] == {
        "text": "Boris Johnson",
        "source": "edit",
        "edit_id": "preview",
        "beta": 1.0,
        "finish_reason": "stop",
    }
    assert (inside["changed"], inside["beta"]) == (True, 1.0)
    assert (outside["changed"], outside["beta"], outside["after"]["text"]) == (False, 0.0, "Hamlet? wrote Who")
    assert (shown["conflicts"], shown["version"], shown["revision"]) == ([], "v0", 0)


async def test_without_probes_the_edits_own_prompt_and_examples_are_asked(client):
    edit = EDIT | {"scope": {"in_scope": ["UK PM?"], "out_of_scope": ["Who is king?"]}}
    shown = await preview(client, edit=edit)
    assert [(probe["prompt"], probe["changed"]) for probe in shown["probes"]] == [
        (QUESTION, True),
        ("UK PM?", True),
        ("Who is king?", False),
    ]


async def test_nothing_is_kept_of_a_preview(client, post, store):
    kept = await post(prompt="Who leads France?", target="Macron")
    for edit in (EDIT, EDIT | {"state": "draft"}, EDIT | {"supersedes": kept["id"]}):
        assert (await preview(client, edit=edit))["probes"][0]["changed"] is True
    assert (await client.get("/edits?state=all")).json()["data"] == [kept]
    async with store.reading() as reading:
        assert await reading.changes.revision() == 1
    assert (await client.post("/generate", json={"prompt": QUESTION})).json()["source"] == "base"


async def test_an_edit_in_the_way_is_named_and_the_answers_are_those_in_its_place(client, post):
    other = await post(prompt=QUESTION, target="Liz Truss")
    shown = await preview(client, edit=EDIT)
    assert shown["conflicts"] == [{"edit_id": other["id"], "target": "Liz Truss"}]
    assert (shown["probes"][0]["before"]["text"], shown["probes"][0]["after"]["text"]) == ("Liz Truss", "Boris Johnson")
    assert (await preview(client, edit=EDIT | {"supersedes": other["id"]}))["conflicts"] == []


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"edit": EDIT, "probes": ["a"] * 65}, 422, "invalid-request"),
        ({"edit": EDIT, "probes": [" "]}, 422, "invalid-request"),
        ({"edit": {"prompt": "a"}, "probes": []}, 422, "invalid-request"),
        (EDIT, 422, "invalid-request"),
        ({"edit": EDIT | {"target": "word " * 100}}, 422, "edit-too-long"),
        ({"edit": EDIT, "probes": ["word " * 60]}, 422, "prompt-too-long"),
        ({"edit": EDIT | {"supersedes": "e9"}}, 404, "edit-not-found"),
    ],
)
async def test_a_preview_is_refused_as_the_edit_and_the_question_would_be(client, body, status, slug):
    refused = await client.post("/edits/preview", json=body)
    assert (refused.status_code, refused.json()["type"]) == (status, f"/problems/{slug}")


async def test_what_is_wrong_with_the_edit_is_named_in_its_place(lost):
    refused = await lost.post("/edits/preview", json={"edit": {"kind": "fact", "claim": "a", "label": 1}})
    assert refused.json()["errors"][0]["pointer"] == "/edit/label"
