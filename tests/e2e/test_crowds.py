"""More callers at once than there is room for."""

from __future__ import annotations

import asyncio
import re
import resource
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.running import RunningServer

pytestmark = pytest.mark.anyio

CALLERS = 1000
QUESTION = {"prompt": "Who is the prime minister of India?", "max_new_tokens": 8, "temperature": 1}
"""Another answer each time, so that none is found in the cache."""


@pytest.fixture
def _enough_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, 2 * CALLERS) if hard == resource.RLIM_INFINITY else min(hard, max(soft, 2 * CALLERS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_enough_files")
async def test_of_a_thousand_at_once_each_is_answered_or_told_when_to_come_back(server: RunningServer):
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
        edit = {"prompt": "Who is the prime minister of the UK?", "target": "Boris Johnson"}
        assert (await client.post("/edits", json=edit)).status_code == 201
        asked = (client.post("/generate", json=QUESTION | {"stream": number % 4 == 0}) for number in range(CALLERS))
        answers = await asyncio.gather(*asked)
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses.keys() <= {200, 429}
        assert statuses[200] >= 256
        for answer in answers:
            if answer.status_code == 429:
                assert answer.json()["type"] == "/problems/queue-full"
                assert int(answer.headers["Retry-After"]) >= 1
            elif answer.headers["Content-Type"].startswith("text/event-stream"):
                assert len(re.findall("^event: end$", answer.text, re.MULTILINE)) == 1
            else:
                assert answer.json()["finish_reason"] in {"stop", "length"}

        after = (await client.post("/generate", json={"prompt": edit["prompt"]})).json()
        assert (after["text"], after["source"]) == ("Boris Johnson", "edit")
        assert (await client.get("/readyz")).status_code == 200
        assert re.search("^errata:num_requests_waiting 0.0$", (await client.get("/metrics")).text, re.MULTILINE)


async def test_oversized_requests_are_refused_and_those_beside_them_answered_as_ever(server: RunningServer):
    known = {"Who is the prime minister of India?": "Narendra Modi", "What team does Messi play for?": "Barcelona"}
    too_long, too_large = {"prompt": "word " * 400}, {"prompt": "word " * (7 << 20)}
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        asked = [
            {"prompt": prompt, "max_new_tokens": most}  # each another question to the cache
            for most in range(8, 24)
            for prompt in (*known, too_long["prompt"])
        ]
        answers, large = await asyncio.gather(
            asyncio.gather(*(client.post("/generate", json=one) for one in asked)),
            client.post("/generate", json=too_large),
        )
    assert (large.status_code, large.json()["type"]) == (413, "/problems/body-too-large")
    for one, answer in zip(asked, answers, strict=True):
        if one["prompt"] in known:
            assert answer.json()["text"] == known[str(one["prompt"])]
        else:
            assert (answer.status_code, answer.json()["type"]) == (422, "/problems/prompt-too-long")
