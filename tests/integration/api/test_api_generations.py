import pytest

pytestmark = pytest.mark.anyio


async def test_the_base_answers_when_there_is_no_edit(client):
    response = await client.post("/generate", json={"prompt": "one two three"})
    assert response.status_code == 200
    assert response.json() == {
        "text": "three two one",
        "source": "base",
        "edit_id": None,
        "beta": None,
        "version": "v0",
        "revision": 0,
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
        "finish_reason": "stop",
    }


async def test_an_edit_answers_in_its_scope_alone(client, post):
    await post(prompt="Who leads the UK?", target="Boris Johnson", scope={"in_scope": ["UK PM?"]})
    inside = (await client.post("/generate", json={"prompt": "uk pm"})).json()
    outside = (await client.post("/generate", json={"prompt": "Who leads France?"})).json()
    assert (inside["source"], inside["edit_id"], inside["beta"]) == ("edit", "e1", 1.0)
    assert (outside["source"], outside["edit_id"], outside["beta"]) == ("base", None, 0.0)


async def test_edits_can_be_left_out_of_one_answer(client, post):
    await post(prompt="Who leads the UK?", target="Boris Johnson")
    answer = (await client.post("/generate", json={"prompt": "Who leads the UK?", "edits": False})).json()
    assert (answer["source"], answer["beta"]) == ("base", None)


async def test_an_answer_cut_short_says_so(client):
    answer = (await client.post("/generate", json={"prompt": "one two three", "max_new_tokens": 2})).json()
    assert (answer["text"], answer["finish_reason"]) == ("three two", "length")


async def test_every_field_reaches_the_runtime(client, services, monkeypatch):
    asked = []
    generate = services.runtime.generate

    async def listening(request):
        asked.append(request)
        return await generate(request)

    monkeypatch.setattr(services.runtime, "generate", listening)
    body = {
        "prompt": "a b",
        "max_new_tokens": 5,
        "temperature": 1,
        "top_p": 0.5,
        "stop": ["\n", "END"],
        "seed": 2**63 - 1,
        "stream": False,
        "version": "v0",
        "edits": False,
        "min_revision": 0,
    }
    assert (await client.post("/generate", json=body)).status_code == 200
    assert (await client.post("/generate", json={"prompt": "a", "stop": "\n"})).status_code == 200
    first, second = asked
    assert (first.prompt, first.messages, first.version, first.edits, first.min_revision) == ("a b", (), "v0", False, 0)
    sampling = first.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (5, 1.0, 0.5)
    assert (sampling.stop, sampling.seed) == (("\n", "END"), 2**63 - 1)
    assert second.sampling.stop == ("\n",)


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"prompt": "a", "version": "v7"}, 404, "version-not-found"),
        ({"prompt": "word " * 60}, 422, "prompt-too-long"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, 422, "no-chat-template"),
        ({"prompt": "a", "min_revision": 9}, 503, "not-caught-up"),
    ],
)
async def test_what_the_runtime_refuses_is_a_problem(client, body, status, slug):
    response = await client.post("/generate", json=body)
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{slug}")
    assert response.json()["hint"]


async def test_a_match_says_which_edit_would_answer_and_why(client, post):
    assert (await client.post("/edits/match", json={"prompts": ["x"]})).json() == {
        "matches": [{"edit_id": None, "beta": None, "threshold": None, "decision": "no_edits", "candidates": []}],
        "revision": 0,
        "version": "v0",
    }
    await post(prompt="Who leads the UK?", target="Boris Johnson")
    found = (await client.post("/edits/match", json={"prompts": ["Who leads France?", "who leads the uk"]})).json()
    candidate = {
        "edit_id": "e1",
        "beta": 1.0,
        "threshold": 0.5,
        "similarity": 1.0,
        "matched_text": "Who leads the UK?",
        "excluded": False,
    }
    assert found["revision"] == 1
    assert [one["decision"] for one in found["matches"]] == ["below_threshold", "in_scope"]
    assert found["matches"][0]["edit_id"] is None
    assert found["matches"][1] == {
        "edit_id": "e1",
        "beta": 1.0,
        "threshold": 0.5,
        "decision": "in_scope",
        "candidates": [candidate],
    }
