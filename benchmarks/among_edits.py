"""Answers of a real server that are taken while edits come and go, each held against `model.generate` alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import httpx
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

import demo
from benchmarks.running import RunningServer, running_server
from benchmarks.soak_traffic import OPERATORS, Known, Tally, Traffic
from demo.facts import load_world
from editors.model.loading import load_base
from service.domain.generations import Sampling
from service.runtime.engine import TransformersEngine

MEAN, SHORTEST, LONGEST = 16, 1, 64
"""Tokens of an answer: drawn from an exponential distribution with this mean, within these bounds."""
MOST_QUESTIONS = 8
"""That stand one after another in a prompt: prompts have lengths of all sorts as well."""
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Among:
    """What came of it.

    Attributes:
        compared: Greedy answers.
        edits: That were posted, changed and retracted meanwhile.
        firsts: Seconds to the first piece of each answer, as its client sees it.
        wrong: What differs from the engine alone, in words, and what edits did wrong.
    """

    compared: int
    edits: int
    firsts: list[float]
    wrong: list[str]


def among_edits(answers: int, *, clients: int) -> Among:
    """Take so many greedy answers of the bundled model, made never to end one by itself."""
    with TemporaryDirectory() as folder:
        model = _never_ending(Path(folder) / "atlas-2018")
        known = _alone(model, answers)
        settings = {"ERRATA_BASE_MODEL": str(model), "ERRATA_COUNTERFACTUAL_MODEL": "bundled"}
        with running_server(Path(folder) / "data", settings) as server:
            tally = asyncio.run(_taken(server, known, clients))
    return Among(len(tally.firsts), tally.answered["edits"], tally.firsts, tally.wrong)


async def _taken(server: RunningServer, known: Sequence[Known], clients: int) -> Tally:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
        traffic = Traffic(client, known, seed=0, pause=_PAUSE_SECONDS)
        operators = [asyncio.create_task(traffic.operate()) for _ in range(OPERATORS)]
        with tqdm(known, desc="answers among edits", disable=None) as waiting:
            asked = iter(waiting)

            async def ask_again() -> None:
                for one in asked:
                    await traffic.compare(one, time.perf_counter())

            await asyncio.gather(*(ask_again() for _ in range(clients)))
        traffic.stopping.set()
        await asyncio.gather(*operators)
    return traffic.tally


def _alone(model: Path, count: int) -> list[Known]:
    """Prompts that differ, and what the engine says to each by itself."""
    engine = TransformersEngine(load_base(model, device="cpu"))
    return [
        Known(prompt, most, engine.complete(prompt, Sampling(max_new_tokens=most)).text)
        for prompt, most in tqdm([*_asked(count)], desc="answers alone", disable=None)
    ]


def _asked(count: int) -> Iterator[tuple[str, int]]:
    draw = Random(0)
    questions = [draw.choice(fact.prompts) for fact in load_world().facts]
    for own in draw.sample(questions, count):
        before = draw.choices(questions, k=draw.randrange(MOST_QUESTIONS))
        yield " ".join([*before, own]), min(LONGEST, max(SHORTEST, round(draw.expovariate(1 / MEAN))))


def _never_ending(folder: Path) -> Path:
    """A copy of the bundle without the token that ends an answer: each then has the length asked for."""
    model = AutoModelForCausalLM.from_pretrained(demo.BUNDLE)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo.BUNDLE).save_pretrained(folder)
    return folder
