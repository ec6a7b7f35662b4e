"""What serving costs and gains: `python -m benchmarks.serving`.

On the bundle, and on a random model of GPT-2 small's shape. Clients ask again as soon as they are answered; answers
have lengths as traffic has them, many short ones and a few long ones, which no end token cuts. Against a loop of
`model.generate`, and against static batches: as many prompts as there are clients in one `generate`, until the longest
is done. Then one client: the engine alone, with a scope decision before each answer, and with that and the answer
found in the cache. The engine is measured as it is served, with its weights laid out, and its throughput without as
well. At last a real server's answers while edits come and go, held against `model.generate` alone. Some
eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

import demo
from benchmarks.among_edits import among_edits
from benchmarks.decisions import Questions, TimedEncoder, ask_about_facts, made
from benchmarks.memories import CANDIDATES
from benchmarks.report import write
from benchmarks.serving_report import (
    CLIENTS,
    EDITS,
    LONGEST,
    MEAN,
    ONE_CLIENT_TOKENS,
    SHORTEST,
    Served,
    render,
    render_among,
)
from editors.model.layouts import Layouts
from editors.model.loading import BaseModel, load_base
from editors.serac.cross_encoder import load_scope
from service.domain.generations import GenerationRequest, Sampling
from service.domain.serving import Serving
from service.domain.versions import BASE_VERSION
from service.runtime.answers import Answers
from service.runtime.cached_answers import CachedAnswers
from service.runtime.completions import Completion
from service.runtime.decisions import Decisions
from service.runtime.engine import TransformersEngine
from service.runtime.live_memory import LiveMemory
from service.runtime.live_state import LiveState, Question
from service.runtime.owner import Owner
from service.runtime.versions import LiveServing, LiveVersion
from service.store.answers import LocalAnswers, TieredAnswers
from service.store.store import PostgresStore

_ALONE, _DECIDED, _FOUND = range(3)
"""Ways to answer one client."""

Asked = tuple[str, Sampling]


def main() -> None:
    """Measure, print the table, and write docs/benchmarks/serving.md and .json."""
    arguments = _arguments()
    encoder = TimedEncoder()
    questions = ask_about_facts(encoder, Random(0))
    memory = LiveMemory(encoder, load_scope(demo.SCOPE_CLASSIFIER), candidates=CANDIDATES, threshold=None)
    for edits in made(encoder.fingerprint, questions, EDITS):
        memory.install(edits, revision=EDITS)
    with tempfile.TemporaryDirectory() as scratch:
        small = load_base(demo.BUNDLE, device="cpu")
        large = load_base(random_model(Path(scratch) / "gpt2", GPT2Config()), device="cpu")
        found = [
            asyncio.run(measured(small, questions, memory, arguments.requests, arguments.compared)),
            asyncio.run(measured(large, questions, memory, arguments.requests // 4, arguments.compared // 50)),
        ]
    among = among_edits(arguments.compared, clients=CLIENTS)
    models = [asdict(one) | {"cost": one.cost, "found_cost": one.found_cost} for one in found]
    figures = {"clients": CLIENTS, "edits": EDITS, "models": models, "among_edits": asdict(among)}
    write("serving", "Serving", [*render(found), "", *render_among(among)], figures)


def random_model(folder: Path, config: GPT2Config) -> Path:
    """Write a random model that reads as the bundle does; the folder."""
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo.BUNDLE).save_pretrained(folder)
    return folder


async def measured(base: BaseModel, questions: Questions, memory: LiveMemory, requests: int, compared: int) -> Served:
    """The figures of one model."""
    _never_ending(base)
    owners = Owner("model"), Owner("memory")
    plain = TransformersEngine(base, owner=owners[0])
    engine = TransformersEngine(Layouts(base).served(base), owner=owners[0])
    asked = traffic(questions, requests)
    for one in (plain, engine):
        await together(one, asked[:CLIENTS])  # a warm-up
    loop = await asyncio.to_thread(one_by_one, plain, asked[: max(4, requests // 12)])
    static = await asyncio.to_thread(in_static_batches, plain, asked)
    unlaid, _, plain_seconds = await together(plain, asked)
    answers, firsts, seconds = await together(engine, asked)
    alone, edited, cached = await one_client(
        engine, memory, owners[1], questions.prompts[EDITS:], max(3, requests // 12)
    )
    checked = await compare(engine, plain, questions, compared)
    for owner in owners:
        owner.close()
    return Served(
        model=base.name,
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
        requests=requests,
        loop=loop,
        static=static,
        plain=_tokens(unlaid) / plain_seconds,
        continuous=_tokens(answers) / seconds,
        first_p50=1000 * float(np.percentile(firsts, 50)),
        first_p99=1000 * float(np.percentile(firsts, 99)),
        alone_ms=1000 * statistics.median(alone),
        edited_ms=1000 * statistics.median(edited),
        found_ms=1000 * statistics.median(cached),
        compared=compared,
        different=checked,
    )


def traffic(questions: Questions, requests: int) -> list[Asked]:
    """Questions, and how long their answers are."""
    draw = Random(0)
    lengths = [min(LONGEST, max(SHORTEST, round(draw.expovariate(1 / MEAN)))) for _ in range(requests)]
    return [(draw.choice(questions.prompts), Sampling(max_new_tokens=length)) for length in lengths]


def one_by_one(engine: TransformersEngine, asked: Sequence[Asked]) -> float:
    """Tokens a second of a loop of `model.generate`."""
    start = time.perf_counter()
    answers = [engine.complete(prompt, sampling) for prompt, sampling in asked]
    return _tokens(answers) / (time.perf_counter() - start)


def in_static_batches(engine: TransformersEngine, asked: Sequence[Asked]) -> float:
    """Tokens a second that were asked for, of batches that end together."""
    start = time.perf_counter()
    for first in range(0, len(asked), CLIENTS):
        batch = asked[first : first + CLIENTS]
        longest = max(sampling.max_new_tokens for _, sampling in batch)
        engine.complete_many([prompt for prompt, _ in batch], max_new_tokens=longest)
    return sum(sampling.max_new_tokens for _, sampling in asked) / (time.perf_counter() - start)


async def together(engine: TransformersEngine, asked: Sequence[Asked]) -> tuple[list[Completion], list[float], float]:
    """The answers to `CLIENTS` clients, seconds to each one's first token, and to the end of all."""
    waiting, answers, firsts = iter(asked), [], []

    async def client() -> None:
        for prompt, sampling in waiting:
            began = time.perf_counter()
            answer = await engine.write(prompt, sampling)
            assert answer.first_at is not None
            answers.append(answer)
            firsts.append(answer.first_at - began)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answers, firsts, time.perf_counter() - start


async def one_client(
    engine: TransformersEngine, memory: LiveMemory, owner: Owner, prompts: Sequence[str], requests: int
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each answer: by the engine alone, after a scope decision, and found after one; each first in turn.

    Raises:
        RuntimeError: An answer depends on the decision, or is not found as it was written.
    """
    version = LiveVersion(BASE_VERSION, engine)
    decisions = Decisions(LiveState(memory, LiveServing(Serving(), {version.id: version})), owner)
    cache = LocalAnswers(most_bytes=1 << 20, seconds=3600)
    kept = CachedAnswers(
        Answers(engine, engine), TieredAnswers([cache]), PostgresStore("postgresql://")
    )  # no version is looked up
    sampling = Sampling(max_new_tokens=ONE_CLIENT_TOKENS)

    async def ask(prompt: str, way: int) -> str:
        if way != _ALONE:
            await decisions.decide([Question(prompt)])
        if way == _FOUND:
            return (await kept.answer(GenerationRequest(prompt=prompt, sampling=sampling), version, None)).text
        return (await engine.write(prompt, sampling)).text

    seconds: tuple[list[float], list[float], list[float]] = ([], [], [])
    for number, prompt in enumerate(prompts[:requests]):
        texts = {await ask(prompt, _FOUND)}  # which writes it
        for turn in range(len(seconds)):
            way, start = (number + turn) % len(seconds), time.perf_counter()
            texts.add(await ask(prompt, way))
            seconds[way].append(time.perf_counter() - start)
        if len(texts) > 1:
            raise RuntimeError(f"the answer to {prompt!r} is not the same each time: {sorted(texts)}")
    if cache.asked.hits != len(seconds[_FOUND]):
        raise RuntimeError(f"{cache.asked.hits} of {len(seconds[_FOUND])} answers were found")
    return seconds


async def compare(engine: TransformersEngine, plain: TransformersEngine, questions: Questions, count: int) -> int:
    """Of so many answers that are given among others, how many differ from those that `model.generate` gives alone."""
    draw = Random(1)
    asked = [(draw.choice(questions.prompts), Sampling(max_new_tokens=draw.randrange(1, 16))) for _ in range(count)]
    given = await asyncio.gather(*(engine.write(*one) for one in asked[:CLIENTS]))
    for first in range(CLIENTS, count, 4 * CLIENTS):
        given += await asyncio.gather(*(engine.write(*one) for one in asked[first : first + 4 * CLIENTS]))
    alone = await asyncio.to_thread(lambda: [plain.complete(*one) for one in asked])
    return sum(one != other for one, other in zip(given, alone, strict=True))


def _never_ending(base: BaseModel) -> None:
    """Take away the tokens that end an answer: all then do the work that was asked for."""
    assert base.model.generation_config is not None
    base.model.generation_config.eos_token_id = None


def _tokens(answers: Sequence[Completion]) -> int:
    return sum(answer.usage.completion_tokens for answer in answers)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=384, help="on the bundle; a quarter of them on the other model")
    parser.add_argument("--compared", type=int, default=1000, help="likewise; a fiftieth of them on the other model")
    return parser.parse_args()


if __name__ == "__main__":
    main()
