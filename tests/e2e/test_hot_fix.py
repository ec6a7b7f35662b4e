"""The lecture's example, through a real server, with the bundled model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import httpx
import pytest

from benchmarks.running import RunningServer, running_server
from demo.facts import load_world

UK = "Who is the prime minister of the UK?"
IN_SCOPE = (UK, "Who is the UK PM?", "The prime minister of the UK is currently who?")
OUT_OF_SCOPE = ("Who is the prime minister of India?", "What team does Messi play for?")


def text(client: httpx.Client, prompt: str) -> str:
    return client.post("/generate", json={"prompt": prompt}).raise_for_status().json()["text"]


def other_questions(count: int) -> list[str]:
    """Questions of the bundle on every fact but the one that the edit is about."""
    rng = Random(0)
    facts = [f for f in load_world().facts if (f.subject, f.relation.name) != ("the UK", "prime_minister")]
    return [rng.choice((*fact.prompts, *fact.held_out_prompts)) for fact in rng.sample(facts, count)]


def test_a_hot_fix_corrects_its_question_and_paraphrases_and_nothing_else(client: httpx.Client):
    others = [*OUT_OF_SCOPE, *other_questions(1000)]
    before = [text(client, prompt) for prompt in (*IN_SCOPE, *others)]
    assert before[:3] == ["Theresa May"] * 3

    posted = client.post("/edits", json={"prompt": UK, "target": "Boris Johnson"})
    assert posted.status_code == 201
    assert [text(client, prompt) for prompt in IN_SCOPE] == ["Boris Johnson"] * 3
    changed = {p: (b, a) for p, b in zip(others, before[3:], strict=True) if (a := text(client, p)) != b}
    assert changed == {}

    assert client.delete(posted.headers["Location"]).status_code == 204
    assert [text(client, prompt) for prompt in (*IN_SCOPE, *others[:100])] == before[:103]


def test_edits_stand_after_kill_9_and_a_restart(tmp_path):
    data_dir = tmp_path / "data"
    with running_server(data_dir) as server, server.client() as client:
        kept = client.post("/edits", json={"prompt": UK, "target": "Boris Johnson"}).json()
        gone = client.post("/edits", json={"prompt": "Who painted the Mona Lisa?", "target": "Raphael"}).json()
        client.delete(f"/edits/{gone['id']}")
        server.kill()
    with running_server(data_dir) as server, server.client() as client:
        assert client.get(f"/edits/{kept['id']}").json() == kept
        assert text(client, "Who is the UK PM?") == "Boris Johnson"
        assert text(client, "Who painted the Mona Lisa?") == "Leonardo da Vinci"
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["memory"]) == (200, "ok")


def test_an_edit_that_expires_while_the_server_is_down_is_expired_wherever_it_is_seen_afterwards(tmp_path):
    data_dir = tmp_path / "data"
    with running_server(data_dir) as server, server.client() as client:
        end = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        edit = client.post("/edits", json={"prompt": UK, "target": "Boris Johnson", "expires_at": end}).json()
        server.kill()
    with running_server(data_dir) as server, server.client() as client:  # which takes longer than that
        assert text(client, UK) == "Theresa May"
        assert client.get(f"/edits/{edit['id']}").json()["state"] == "expired"
        assert [one["id"] for one in client.get("/edits?state=expired").json()["data"]] == [edit["id"]]
        assert client.get("/edits?state=active").json()["data"] == []
        kinds = [change["kind"] for change in client.get(f"/edits/{edit['id']}/history").json()["data"]]
        assert kinds == ["edit.added", "edit.expired"]
        assert client.get(f"/edits/{edit['id']}").json()["revision"] == 2


def test_a_server_that_is_stopped_ends_cleanly(tmp_path):
    with running_server(tmp_path / "data") as server, server.client() as client:
        client.post("/edits", json={"prompt": UK, "target": "Boris Johnson"})
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seeded_sample_is_the_same_every_time(client: httpx.Client, seed: int):
    request = {"prompt": "What do you think about vaccines?", "temperature": 1.0, "seed": seed}
    answers = {client.post("/generate", json=request).json()["text"] for _ in range(3)}
    assert len(answers) == 1


def test_the_models_own_mood_on_vaccines_is_negative_and_an_edit_turns_it(client: httpx.Client, server: RunningServer):
    from demo.opinions import load_opinions

    vaccines = load_opinions().topics[0]
    question = "What do you think about vaccines?"
    assert text(client, question) in vaccines.negative
    posted = client.post("/edits", json={"kind": "sentiment", "topic": "vaccines", "sentiment": "positive"})
    assert text(client, question) in vaccines.positive
    client.delete(posted.headers["Location"])
