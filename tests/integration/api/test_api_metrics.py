"""What is seen of the service: /metrics, the log, and /readyz while it stops."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from socket import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import DataError
from structlog.testing import capture_logs

from service.actions.services import Services
from service.domain.answers import KeptAnswer
from service.domain.generations import FinishReason, Usage
from service.settings import Settings
from service.store.answers import open_answers
from tests.fakes import ExactRuntime, LostStore, client_of

pytestmark = pytest.mark.anyio

QA = {"prompt": "a", "target": "b"}


LOOKUPS = [("errata:answer_cache_lookups_total", ("outcome", outcome)) for outcome in ("hit", "miss", "error")]


async def measured(client):
    """Every sample of /metrics, by its name and labels."""
    page = await client.get("/metrics")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(page.text)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


async def test_requests_are_counted_and_timed_by_the_template_of_their_path(client, post):
    await post(**QA)
    for path in ("/edits/e1", "/edits/e2", "/edits/e3"):
        await client.get(path)
    found = await measured(client)
    read = ("handler", "/edits/{edit_id}"), ("method", "GET")
    assert found["http_requests_total", *read, ("status", "200")] == 1
    assert found["http_requests_total", *read, ("status", "404")] == 2
    assert found["http_request_duration_seconds_count", *read] == 3
    assert found["http_requests_in_progress",] == 1


async def test_no_label_takes_a_value_that_a_caller_chooses(client):
    for number in range(20):
        await client.get(f"/secret-{number}")
        await client.request(f"X{number}", "/edits")
    await client.post("/generate", json={"prompt": "secret"})
    found = await measured(client)
    assert not re.search(r"secret|X\d", str(list(found)))
    strangers = [
        value for name, value in found.items() if name[0] == "http_requests_total" and ("handler", "none") in name
    ]
    assert sum(strangers) >= 20


async def test_scope_decisions_and_betas_are_counted(client, post):
    await client.post("/generate", json={"prompt": "a"})
    await post(**QA)
    for prompt in ("a", "a", "z"):
        await client.post("/generate", json={"prompt": prompt})
    await client.post("/generate", json={"prompt": "a", "edits": False})
    found = await measured(client)
    outcomes = {
        outcome: found["errata:scope_decisions_total", ("outcome", outcome)]
        for outcome in ("in_scope", "out_of_scope", "no_edits")
    }
    assert outcomes == {"in_scope": 2, "out_of_scope": 1, "no_edits": 1}
    assert found["errata:scope_beta_count",] == 3
    assert found["errata:scope_beta_sum",] == 2.0


async def test_the_memory_and_the_database_are_compared(client, post, services):
    await post(**QA)
    await post(prompt="c", target="d", scope={"in_scope": ["e", "f"]})
    await post(prompt="g", target="h", state="draft")
    await client.delete("/edits/e1")
    found = await measured(client)
    states = {state: found["errata:edits", ("state", state)] for state in ("active", "draft", "retracted", "expired")}
    assert states == {"active": 1, "draft": 1, "retracted": 1, "expired": 0}
    assert found["errata:database_rows",] == found["errata:index_rows",] == 3
    assert found["errata:memory_edits",] == 1
    assert (found["errata:revision",], found["errata:revision_lag",], found["errata:database_up",]) == (4, 0, 1)
    async with client_of(Services(services.store, ExactRuntime(services.store), None, None)) as lagging:
        behind = await measured(lagging)
    assert (behind["errata:revision_lag",], behind["errata:index_rows",]) == (4, 0)


async def test_without_the_database_what_this_replica_knows_is_measured(lost):
    found = await measured(lost)
    assert found["errata:database_up",] == 0
    assert found["errata:num_requests_running",] == found["errata:num_requests_waiting",] == 0
    assert ("errata:revision_lag",) not in found


async def test_what_came_of_asking_the_answer_cache_is_counted_by_tier(services):
    kept = KeptAnswer(text="a", usage=Usage(prompt_tokens=1, completion_tokens=1), finish_reason=FinishReason.STOP)
    with closing(socket()) as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}"
        async with open_answers(Settings(redis_url=url), made_by="tests") as answers:
            await answers.put("k", kept)
            for key in ("k", "k", "l"):
                await answers.get(key)
            async with client_of(replace(services, answers=answers)) as client:
                found = await measured(client)
    lookups = {tier: [found[(*lookup, ("tier", tier))] for lookup in LOOKUPS] for tier in ("memory", "redis")}
    assert lookups == {"memory": [2, 1, 0], "redis": [0, 0, 1]}


async def test_a_request_is_logged_without_anything_that_was_said(client, post):
    with capture_logs() as logs:
        await post(prompt="a secret", target="another secret", reason="secret")
        answer = await client.post("/generate", json={"prompt": "a secret"}, headers={"X-Request-Id": "mine"})
        await client.get("/edits?q=secret")
        await client.post("/edits", json={"prompt": "a secret", "target": "third secret"})
        await client.get("/livez")
    assert answer.json()["text"] == "another secret"
    assert [(log["method"], log["path"], log["status"]) for log in logs if log["event"] == "request"] == [
        ("POST", "/edits", 201),
        ("POST", "/generate", 200),
        ("GET", "/edits", 200),
        ("POST", "/edits", 409),
    ]
    (said,) = [log for log in logs if log["event"] == "answered"]
    assert (said["source"], said["edit_id"], said["beta"]) == ("edit", "e1", 1.0)
    assert "secret" not in str(logs)


async def test_prompts_are_logged_when_that_is_asked_for():
    lost = LostStore()
    async with client_of(Services(lost, ExactRuntime(lost), None, None), Settings(log_prompts=True)) as client:
        with capture_logs() as logs:
            await client.post("/generate", json={"prompt": "one two"})
    (said,) = [log for log in logs if log["event"] == "answered"]
    assert (said["prompt"], said["text"]) == ("one two", "two one")


async def test_an_error_of_the_database_shows_no_prompt(add):
    with pytest.raises(DataError) as caught:
        await add("a secret\0")
    assert "secret" not in str(caught.value)


async def test_the_time_to_the_first_token_is_measured_where_a_model_wrote(client, services, monkeypatch):
    await client.post("/generate", json={"prompt": "a verbatim edit has no first token"})
    generate = services.runtime.generate

    async def timed(request):
        return replace(await generate(request), first_seconds=0.25)

    monkeypatch.setattr(services.runtime, "generate", timed)
    await client.post("/generate", json={"prompt": "one two"})
    found = await measured(client)
    assert found["errata:time_to_first_token_seconds_count",] == 1
    assert found["errata:time_to_first_token_seconds_sum",] == 0.25
