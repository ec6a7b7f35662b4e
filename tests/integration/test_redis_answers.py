"""The answer cache with a real Redis: shared, stopped, started again, slow, and full of other things."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from structlog.testing import capture_logs

from editors.model.loading import load_base
from service.domain.answers import KeptAnswer
from service.domain.edits import Descriptor
from service.domain.generations import FinishReason, GenerationRequest, Sampling, Usage
from service.errors import StartupError
from service.runtime.cached_answers import made_by
from service.settings import Settings
from service.store import redis_answers
from service.store.answers import LocalAnswers, open_answers
from tests.redises import redis_on_socket
from tests.runtimes import post

pytestmark = pytest.mark.anyio

ANSWER = KeptAnswer(
    text="Boris \u2028 \0 J\u00f6hnson \U0001f600",
    usage=Usage(prompt_tokens=7, completion_tokens=3),
    finish_reason=FinishReason.STOP,
)
OTHER = replace(ANSWER, text="another", finish_reason=FinishReason.LENGTH)
UK = Descriptor(prompt="Who is the UK PM?", target="Boris Johnson")
PROMPTS = ("Who is the UK PM?", "How tall is a giraffe?", "Who wrote Hamlet?")


@pytest.fixture
def patient(monkeypatch):
    """The machine may be busy, and Redis slow for that."""
    monkeypatch.setattr(redis_answers, "REDIS_SECONDS", 60)


@pytest.fixture
def socket():
    """A path short enough for a socket."""
    with TemporaryDirectory() as folder:
        yield Path(folder) / "redis"


@pytest.fixture
def redis(socket, patient):
    with redis_on_socket(socket) as redis:
        yield redis


def url_of(redis):
    return f"redis+unix://{redis.connection_pool.connection_kwargs['path']}"


@pytest.fixture
async def replica(anyio_backend):
    """Opens the cache of one replica after another; they remember nothing of each other but in Redis."""
    async with AsyncExitStack() as stack:

        async def replica(url, made_by="tests", **settings):
            opened = open_answers(Settings(redis_url=url, **settings), made_by=made_by)
            return await stack.enter_async_context(opened)

        yield replica


def outcomes(cache):
    return {one.tier: (one.hits, one.misses, one.errors) for one in cache.lookups()}


@asynccontextmanager
async def server(answer):
    """Something that listens where Redis should be. The block is given its URL, and the list of its connections."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        with closing(writer):
            await answer(reader, writer)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0", connections
    finally:
        listening.close()


async def test_replicas_find_each_others_answers(redis, replica):
    one, other = await replica(url_of(redis)), await replica(url_of(redis))
    assert await other.get("k") is None
    await one.put("k", ANSWER)
    assert [await other.get("k"), await other.get("k")] == [ANSWER, ANSWER]
    assert outcomes(other) == {"memory": (1, 2, 0), "redis": (1, 1, 0)}
    (name,) = redis.keys()
    assert 0 < redis.ttl(name) <= Settings().answer_cache_seconds


async def test_an_answer_runs_out_here_and_in_redis(redis, replica):
    cache = await replica(url_of(redis), answer_cache_seconds=0.02)
    await cache.put("k", ANSWER)
    await asyncio.sleep(0.05)
    assert await cache.get("k") is None
    assert redis.keys() == []


async def test_makers_do_not_read_each_others_answers(redis, replica):
    await (await replica(url_of(redis), made_by="one")).put("k", ANSWER)
    assert await (await replica(url_of(redis), made_by="other")).get("k") is None


def entry(**changed):
    whole = {"key": "k", "text": "a", "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop"}
    return json.dumps({name: value for name, value in (whole | changed).items() if value is not None})


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"\xff\x00rubbish",
        b"null",
        b"[]",
        b'"text"',
        entry(key="another"),
        entry(text=None),
        entry(text=7),
        entry(prompt_tokens=-1),
        entry(prompt_tokens="1"),
        entry(finish_reason="tired"),
        entry(logprobs=[]),
        entry()[:-1],
    ],
)
async def test_rubbish_under_an_answers_key_is_written_over(redis, replica, rubbish):
    cache = await replica(url_of(redis))
    await cache.put("k", OTHER)
    (name,) = redis.keys()
    redis.set(name, rubbish)
    reading = await replica(url_of(redis))
    assert await reading.get("k") is None
    assert outcomes(reading)["redis"] == (0, 0, 1)
    await reading.put("k", ANSWER)
    assert await (await replica(url_of(redis))).get("k") == ANSWER


async def test_something_else_than_a_text_under_an_answers_key_is_written_over(redis, replica):
    cache = await replica(url_of(redis))
    await cache.put("k", OTHER)
    (name,) = redis.keys()
    redis.delete(name)
    redis.lpush(name, "a list")
    reading = await replica(url_of(redis))
    assert [await reading.get("k"), await reading.get("l")] == [None, None]
    assert outcomes(reading)["redis"] == (0, 1, 1)
    await reading.put("k", ANSWER)
    assert await (await replica(url_of(redis))).get("k") == ANSWER


async def test_a_full_redis_is_read_all_the_same(redis, replica):
    cache = await replica(url_of(redis))
    await cache.put("k", ANSWER)
    redis.config_set("maxmemory", "1")
    await cache.put("l", ANSWER)
    assert redis.dbsize() == 1
    assert await (await replica(url_of(redis))).get("k") == ANSWER


async def test_with_redis_stopped_mid_run_the_answers_go_on_and_it_is_said_once(redis, replica):
    cache = await replica(url_of(redis))
    await cache.put("k", ANSWER)
    redis.shutdown(nosave=True)
    with capture_logs() as logs:
        for key in ("k", "l", "m"):
            await cache.put(key, ANSWER)
            assert await cache.get(key) == ANSWER
        assert await cache.get("n") is None
    assert len(logs) == 1
    assert outcomes(cache) == {"memory": (3, 1, 0), "redis": (0, 0, 1)}


async def test_redis_is_used_again_once_it_is_back(socket, replica, patient, monkeypatch):
    monkeypatch.setattr(redis_answers, "SECONDS_WITHOUT_REDIS", 0.05)
    with redis_on_socket(socket):
        cache = await replica(f"redis+unix://{socket}")
        await cache.put("k", ANSWER)
    assert await cache.get("l") is None
    with redis_on_socket(socket) as restarted, capture_logs() as logs:
        await asyncio.sleep(0.1)
        await cache.put("l", ANSWER)
        assert restarted.dbsize() == 1
        assert await (await replica(f"redis+unix://{socket}")).get("l") == ANSWER
    assert "Redis answers again" in {log["event"] for log in logs}


async def test_a_redis_that_says_nothing_is_waited_for_once_and_not_by_each_request(replica):
    heard = asyncio.Event()

    async def silence(reader, _):
        heard.set()
        await reader.read()

    async with server(silence) as (url, connections):
        cache = await replica(url)
        assert await cache.get("k") is None
        assert heard.is_set()
        for number in range(1000):
            await cache.put(f"k{number}", ANSWER)
            assert await cache.get(f"l{number}") is None
    assert len(connections) == 1
    assert outcomes(cache)["redis"] == (0, 0, 1001)


async def test_of_many_requests_one_finds_out_that_redis_is_still_away(replica, monkeypatch):
    async def silence(reader, _):
        await reader.read()

    async with server(silence) as (url, connections):
        cache = await replica(url)
        await cache.get("k")
        monkeypatch.setattr(redis_answers, "SECONDS_WITHOUT_REDIS", 60)
        cache._tiers[1]._ask_from = 0
        await asyncio.gather(*(cache.get(f"k{number}") for number in range(50)))
    assert len(connections) == 2


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-7\r\n", b"\xff" * 100, b""])
async def test_what_is_no_redis_is_left_alone(replica, said):
    async def answer(_, writer):
        writer.write(said)
        await writer.drain()

    async with server(answer) as (url, _):
        cache = await replica(url)
        assert await cache.get("k") is None
        await cache.put("k", ANSWER)
        assert await cache.get("k") == ANSWER


async def test_a_request_that_ends_early_does_not_get_the_next_one_its_answer(redis, replica):
    cache = await replica(url_of(redis), answer_cache_bytes=1)  # so that nothing is kept but in Redis
    await cache.put("k", ANSWER)
    await cache.put("l", OTHER)
    for turns in range(60):
        early = asyncio.create_task(cache.get("k"))
        for _ in range(turns % 12):
            await asyncio.sleep(0)
        early.cancel()
        assert await cache.get("l") == OTHER
    assert outcomes(cache)["redis"][2] == 0


@pytest.mark.parametrize("url", ["http://somewhere", "redis", "redis://host:port/0"])
def test_an_address_of_redis_that_is_none_stops_the_start(url):
    with pytest.raises(StartupError, match="ERRATA_REDIS_URL"):
        redis_answers.RedisAnswers(url, made_by="tests", seconds=1)


async def test_zero_bytes_keep_nothing_anywhere(redis, replica):
    cache = await replica(url_of(redis), answer_cache_bytes=0)
    await cache.put("k", ANSWER)
    assert (await cache.get("k"), redis.dbsize(), list(cache.lookups())) == (None, 0, [])


async def test_memory_holds_as_much_as_it_may_and_forgets_what_was_asked_for_least_lately(anyio_backend):
    local = LocalAnswers(most_bytes=100_000, seconds=60)
    long = replace(ANSWER, text="x" * 200_000)
    await local.put("long", long)
    for number in range(1000):
        await local.put(f"k{number}", ANSWER)
        assert await local.get("k0") == ANSWER
    kept = [number for number in range(1000) if await local.get(f"k{number}")]
    assert await local.get("long") is None
    assert kept == [0, *range(1000 - len(kept) + 1, 1000)]
    assert 10 < len(kept) <= 100


async def test_a_replica_answers_from_redis_what_another_wrote_and_as_it_would_have_itself(
    store, start_runtime, redis, replica, tiny_base
):
    maker = made_by(tiny_base, None)
    first, second = await replica(url_of(redis), maker), await replica(url_of(redis), maker)
    runtimes = [await start_runtime(store, cache=cache) for cache in (first, second, None)]
    await post(store, runtimes[0], UK)
    answers = []
    for runtime in runtimes:
        await runtime.catch_up()
        asked = [GenerationRequest(prompt=prompt, sampling=Sampling(max_new_tokens=8)) for prompt in PROMPTS]
        answers.append([await runtime.generate(one) for one in asked])
    assert answers[0] == answers[1] == answers[2]
    assert (outcomes(first)["redis"], outcomes(second)["redis"]) == ((0, 3, 0), (3, 0, 0))
    redis.flushall()
    redis.shutdown(nosave=True)
    assert [await runtimes[1].generate(one) for one in asked] == answers[2]


def test_makers_are_told_apart_by_all_that_makes_an_answer(tiny_base, lively_base, model_folders):
    again = load_base(model_folders["llama"], device="cpu")
    half = load_base(model_folders["llama"], device="cpu", dtype="bfloat16")
    talking = load_base(model_folders["llama"], device="cpu")
    talking.tokenizer.chat_template = "{{ messages[0].content }}"
    assert made_by(again, None) == made_by(tiny_base, None) == made_by(tiny_base, tiny_base)
    different = [(tiny_base, None), (lively_base, None), (half, None), (talking, None), (tiny_base, lively_base)]
    assert len({made_by(*models) for models in different}) == len(different)
