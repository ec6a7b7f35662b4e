"""The engine: many answers at once, each as if it were alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from transformers import T5Config, T5ForConditionalGeneration

from editors.model.loading import BaseModel, load_base, load_counterfactual
from service.domain.generations import FinishReason, Sampling
from service.domain.ports import Backlog
from service.errors import EngineFailed, PromptTooLong, QueueFull, ShuttingDown
from service.runtime.completions import Completion
from service.runtime.engine import TransformersEngine
from service.runtime.line import Line
from service.runtime.owner import Owner
from tests.tiny_models import CONFIGS, VOCABULARY, save_lively, tiny_tokenizer

pytestmark = pytest.mark.anyio

IDLE = Backlog(running=0, waiting=0)
WORDS = [
    "Who",
    "is",
    "the",
    "prime",
    "minister",
    "of",
    "France",
    "and",
    "what",
    "capital",
    "has",
    "the",
    "UK",
    "now",
    "?",
]


@pytest.fixture
async def owner(anyio_backend: str) -> AsyncIterator[Owner]:
    owner = Owner("model")
    yield owner
    owner.close()


@pytest.fixture
def line() -> Line:
    return Line(running=4, waiting=64)


@pytest.fixture
def engine(lively_base: BaseModel, owner: Owner, line: Line) -> TransformersEngine:
    return TransformersEngine(lively_base, owner=owner, line=line)


def asked(seed: int, longest: int = 20) -> tuple[str, Sampling]:
    draw = Random(seed)
    prompt = " ".join(draw.choices(WORDS, k=draw.randrange(1, 6)))
    return prompt, Sampling(max_new_tokens=draw.randrange(1, longest))


async def pieces_of(engine: TransformersEngine, prompt: str, sampling: Sampling) -> tuple[list[str], Completion]:
    *pieces, whole = [piece async for piece in await engine.stream(prompt, sampling)]
    return pieces, whole


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what the model's thread will bring about."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - nothing in the service waits for these
            await asyncio.sleep(0.001)


@contextmanager
def failing(base: BaseModel) -> Iterator[None]:
    """Let every pass of the model fail, as it does when the device is lost."""

    def fail(*_: object) -> None:
        raise RuntimeError("device-side assert triggered")

    hook = base.model.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("model_type", CONFIGS)
async def test_answers_that_come_and_go_together_are_those_given_alone(
    model_type: str, tmp_path: Path, owner: Owner, line: Line
):
    base = load_base(save_lively(model_type, tmp_path / model_type), device="cpu")
    engine = TransformersEngine(base, owner=owner, line=line)
    requests = [asked(seed) for seed in range(24)]
    alone = [engine.complete(prompt, sampling) for prompt, sampling in requests]
    together = await asyncio.gather(*(engine.write(prompt, sampling) for prompt, sampling in requests))
    assert list(together) == alone
    assert len({completion.text for completion in together}) > 8
    assert line.backlog() == IDLE


@pytest.mark.parametrize("model_type", ["mistral", "gemma2"])
async def test_a_sliding_window_slides_over_each_row_by_itself(model_type, tmp_path, owner, line, monkeypatch):
    narrow = CONFIGS[model_type].from_dict(CONFIGS[model_type].to_dict() | {"sliding_window": 6})
    monkeypatch.setitem(CONFIGS, model_type, narrow)
    base = load_base(save_lively(model_type, tmp_path), device="cpu")
    assert base.model.config.sliding_window == 6
    engine = TransformersEngine(base, owner=owner, line=line)
    requests = [asked(seed, longest=40) for seed in range(24)]
    together = await asyncio.gather(*(engine.write(prompt, sampling) for prompt, sampling in requests))
    assert list(together) == [engine.complete(prompt, sampling) for prompt, sampling in requests]


async def test_a_long_answer_is_the_same_when_others_come_and_go_beside_it(engine):
    prompt, sampling = "The capital of France", Sampling(max_new_tokens=200)
    alone = engine.complete(prompt, sampling)
    beside = [asyncio.create_task(engine.write(*asked(seed))) for seed in range(60)]
    assert await engine.write(prompt, sampling) == alone
    await asyncio.gather(*beside)


async def test_a_sample_depends_on_its_seed_and_on_nobody_beside_it(engine):
    sampling = Sampling(max_new_tokens=12, temperature=1.5, top_p=0.9, seed=5)
    alone = await engine.write("Who is", sampling)
    other, *same, _ = await asyncio.gather(
        engine.write("Who is", replace(sampling, seed=6)),
        *(engine.write("Who is", sampling) for _ in range(3)),
        engine.write("Who is the", replace(sampling, seed=None)),
    )
    assert same == [alone] * 3
    assert other != alone


@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-6])
async def test_next_to_no_temperature_takes_the_likeliest_token(engine, temperature):
    greedy = await engine.write("Who is", Sampling(max_new_tokens=8))
    sampling = Sampling(max_new_tokens=8, temperature=temperature, top_p=5e-324, seed=1)
    assert await engine.write("Who is", sampling) == greedy


@pytest.mark.parametrize(
    "sampling", [Sampling(max_new_tokens=40), Sampling(max_new_tokens=40, temperature=1.8, seed=3)]
)
async def test_the_pieces_of_a_stream_are_the_answer(engine, sampling):
    for prompt in ("Who is", "The capital of France", "?"):
        expected = await engine.write(prompt, sampling)
        pieces, whole = await pieces_of(engine, prompt, sampling)
        assert ("".join(pieces), whole) == (expected.text, expected)
        assert len(pieces) > 3 and all(pieces)
        stops = (expected.text[7:10], expected.text[12:14])
        cut = await engine.write(prompt, replace(sampling, stop=stops))
        pieces, whole = await pieces_of(engine, prompt, replace(sampling, stop=stops))
        assert ("".join(pieces), whole) == (cut.text, cut)
        assert expected.text.startswith(cut.text) and len(cut.text) <= 7
        assert cut.finish_reason is FinishReason.STOP


async def test_the_first_piece_comes_before_the_last_token_is_written(engine, line):
    stream = await engine.stream("Who is", Sampling(max_new_tokens=240))
    async for _ in stream:
        break
    assert line.backlog() == Backlog(running=1, waiting=0)
    stream.close()
    await until(lambda: line.backlog() == IDLE)


async def test_who_leaves_takes_the_request_along_and_leaves_the_others_alone(engine, line):
    endless = Sampling(max_new_tokens=240)
    expected = engine.complete("The capital", Sampling(max_new_tokens=30))
    leaving = [asyncio.create_task(engine.write("Who is", endless)) for _ in range(40)]
    staying = asyncio.create_task(engine.write("The capital", Sampling(max_new_tokens=30)))
    await until(lambda: line.backlog().running > 0)
    for task in leaving:
        task.cancel()
    assert await staying == expected
    await asyncio.gather(*leaving, return_exceptions=True)
    assert line.backlog() == IDLE


async def test_one_more_than_may_wait_is_refused_and_the_others_are_answered(lively_base, owner):
    line = Line(running=2, waiting=5)
    engine = TransformersEngine(lively_base, owner=owner, line=line)
    busy = threading.Event()
    holding = asyncio.create_task(owner.run(busy.wait))
    asking = [asyncio.create_task(engine.write("Who is", Sampling(max_new_tokens=4))) for _ in range(20)]
    await until(lambda: sum(task.done() for task in asking) == 15)
    busy.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    await holding
    refused = [result for result in results if isinstance(result, QueueFull)]
    assert len(refused) == 15
    assert refused[0].extra == {"waiting": 5}
    assert all(isinstance(result, Completion | QueueFull) for result in results)
    assert line.backlog() == IDLE


async def test_a_request_over_capacity_is_refused_and_one_at_it_is_answered(engine):
    context = engine.model.context_length
    tokens = engine.count("Who is")
    beside = asyncio.create_task(engine.write("The capital", Sampling(max_new_tokens=30)))
    with pytest.raises(PromptTooLong):
        await engine.write("Who is", Sampling(max_new_tokens=context - tokens + 1))
    full = await engine.write("Who is", Sampling(max_new_tokens=context - tokens))
    assert full.usage.prompt_tokens + full.usage.completion_tokens <= context
    assert await beside == engine.complete("The capital", Sampling(max_new_tokens=30))


async def test_a_limit_that_may_give_way_leaves_what_the_context_has_room_for(engine):
    context = engine.model.context_length
    prompt = "Tell me more"
    tokens = engine.count(prompt)
    fitted = Sampling(max_new_tokens=10 * context, fitted=True)
    answer = await engine.write(prompt, fitted)
    assert answer == await engine.write(prompt, Sampling(max_new_tokens=context - tokens))
    assert await engine.write(prompt, replace(fitted, max_new_tokens=3)) == await engine.write(
        prompt, Sampling(max_new_tokens=3)
    )
    assert engine.complete(prompt, fitted).text == answer.text
    with pytest.raises(PromptTooLong, match="and 1 more"):
        await engine.write(prompt * context, fitted)


async def test_a_model_that_fails_refuses_what_it_was_at_and_comes_back(engine, lively_base, line):
    expected = engine.complete("Who is", Sampling(max_new_tokens=8))
    stream = await engine.stream("Who is", Sampling(max_new_tokens=240))
    with failing(lively_base):
        with pytest.raises(EngineFailed):
            async for _ in stream:
                pass
        assert engine.problem == "The model failed: RuntimeError."
        with pytest.raises(EngineFailed):
            await engine.write("Who is", Sampling(max_new_tokens=8))
        assert line.backlog() == IDLE
    await until(lambda: engine.problem is None)
    assert await engine.write("Who is", Sampling(max_new_tokens=8)) == expected


async def test_what_is_being_answered_when_the_owner_is_closed_is_told(engine, owner):
    streams = [await engine.stream("Who is", Sampling(max_new_tokens=240)) for _ in range(8)]
    await asyncio.to_thread(owner.close)
    for stream in streams:
        with pytest.raises(ShuttingDown):
            async for _ in stream:
                pass
    with pytest.raises(ShuttingDown):
        await engine.write("Who is", Sampling())


async def test_other_work_on_the_models_thread_has_its_turn(engine, owner):
    endless = await engine.stream("Who is", Sampling(max_new_tokens=240))
    assert await owner.run(engine.count, "Who is") == engine.count("Who is")
    pieces = [piece async for piece in endless]
    assert isinstance(pieces[-1], Completion)


async def test_a_model_with_an_encoder_answers_too(owner, line, tmp_path):
    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    engine = TransformersEngine(load_counterfactual(tmp_path, device="cpu"), owner=owner, line=line)
    sampling = Sampling(max_new_tokens=6)
    whole = await engine.write("Who is", sampling)
    assert whole == engine.complete("Who is", sampling)
    pieces, last = await pieces_of(engine, "Who is", sampling)
    assert ("".join(pieces), last) == (whole.text, whole)
