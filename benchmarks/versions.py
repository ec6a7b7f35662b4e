"""What a version costs beside its base: `python -m benchmarks.versions`.

Ten facts are given another answer by ROME, which makes the version whose file is measured. For the time, its factors
are shrunk until version and base write the same answers: both then do the same work. The two are asked in turn, each
time the other one first. On the bundle, and on a random model of GPT-2 small's shape. Some five minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import GPT2Config

import demo
from benchmarks.cases import counterfacts, drawn, request_of
from benchmarks.costs import random_gpt2
from benchmarks.report import write
from editors.delta import Delta, LowRank, compose, install
from editors.delta_files import save
from editors.errors import EditFailed
from editors.model.loading import BaseModel, load_base
from editors.recommended import config_for
from editors.registry import method_named
from service.domain.generations import Sampling
from service.runtime.engine import TransformersEngine

EDITS = 10
_FACTS_TRIED = 50
MOST_LATENCY, MOST_BYTES = 1.02, 0.01
"""What is required of a version: latency against the base's, and bytes against the base's."""
_SAMPLING = Sampling(max_new_tokens=8)
_WARM_UP = 3
_REPETITIONS = 4
"""Of each request, of which the fastest counts: what else runs on the machine does not stop it then."""
_SMALL = 1e-6
_LIVELY = 0.1
"""Spread of the random model's weights: at the usual one, what an MLP writes hardly reaches the answer."""
_CLOCKS = (time.perf_counter, time.process_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a version costs.

    Attributes:
        requests: To each of the two.
        base_ms: The median of the base's answers, in milliseconds.
        version_ms: Likewise of the version's.
        processor: The version's median time of a processor against the base's: what latency comes to where nothing
            else runs.
        version_bytes: Of its file.
        base_bytes: Of the base's tensors.
        memory_bytes: Of the tensors that it owns beside the base's when it is served.
    """

    model: str
    parameters: int
    requests: int
    base_ms: float
    version_ms: float
    processor: float
    version_bytes: int
    base_bytes: int
    memory_bytes: int

    @property
    def latency(self) -> float:
        """Against the base's."""
        return self.version_ms / self.base_ms

    @property
    def share(self) -> float:
        """Of the base's bytes."""
        return self.version_bytes / self.base_bytes


def main() -> None:
    """Measure, print the table, and write docs/benchmarks/versions.md and .json."""
    arguments = _arguments()
    torch.set_num_threads(1)  # two threads on a busy machine wait for each other
    with tempfile.TemporaryDirectory() as scratch:
        random = random_gpt2(Path(scratch) / "gpt2", GPT2Config(initializer_range=_LIVELY))
        costs = [
            measured(demo.BUNDLE, [demo.STATISTICS], arguments.requests),
            measured(random, [random], max(1, arguments.requests // 6)),
        ]
    title = "A version against its base"
    figures = [asdict(cost) | {"latency": cost.latency, "share": cost.share} for cost in costs]
    write("versions", title, render(costs), {"edits": EDITS, "models": figures})


def measured(folder: Path, assets: Sequence[Path], requests: int) -> Cost:
    """The cost of a version on a model that has key statistics."""
    base = load_base(folder, device="cpu")
    delta = version_of_ten(base, assets)
    edited = install(base, quiet(delta))
    engines = [TransformersEngine(base), TransformersEngine(replace(base, model=edited))]
    (base_ms, version_ms), (base_busy, version_busy) = (
        [statistics.median(seconds) * 1000 for seconds in by_clock] for by_clock in in_turn(engines, requests)
    )
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "delta.safetensors"
        save(delta, file)
        size = file.stat().st_size
    shared = {parameter.data_ptr() for parameter in base.model.parameters()}
    return Cost(
        model=base.name,
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
        requests=requests,
        base_ms=base_ms,
        version_ms=version_ms,
        processor=version_busy / base_busy,
        version_bytes=size,
        base_bytes=_bytes(base.model.parameters()),
        memory_bytes=_bytes(p for p in edited.parameters() if p.data_ptr() not in shared),
    )


def version_of_ten(base: BaseModel, assets: Sequence[Path]) -> Delta:
    """Ten facts given another answer by ROME, one by one; a random model does not take every edit.

    Raises:
        RuntimeError: It takes fewer than ten of many.
    """
    method = method_named("rome")
    config, made = config_for(base, method, assets), list[Delta]()
    for case in counterfacts(_FACTS_TRIED, seed=0):
        with suppress(EditFailed):
            made.append(method.prepare(base, [request_of(case)], config, assets=assets))
        if len(made) == EDITS:
            return compose(made)
    raise RuntimeError(f"{base.name} took {len(made)} of {_FACTS_TRIED} edits; {EDITS} are needed")


def quiet(delta: Delta) -> Delta:
    """A delta of the same shape, too small for any answer to change."""
    return replace(
        delta,
        changes={
            site: LowRank(change.u * _SMALL, change.v)
            for site, change in delta.changes.items()
            if isinstance(change, LowRank)
        },
    )


def in_turn(engines: Sequence[TransformersEngine], requests: int) -> list[list[list[float]]]:
    """Seconds by each clock of each engine's answers to the same prompts, each the fastest of a few.

    Raises:
        RuntimeError: They do not write the same.
    """
    prompts = [case.in_scope[0].prompt for case in drawn(requests + _WARM_UP, seed=1)]
    prompts += prompts[_WARM_UP:] * (requests // len(prompts) + 1)
    seconds: list[list[list[float]]] = [[[] for _ in engines] for _ in _CLOCKS]
    for number, prompt in enumerate(tqdm(prompts[: requests + _WARM_UP], desc=engines[0].model.name, disable=None)):
        texts: set[str] = set()
        fastest = [[float("inf")] * len(engines) for _ in _CLOCKS]
        for repetition in range(_REPETITIONS):
            for place in (0, 1) if (number + repetition) % 2 else (1, 0):
                begun = [clock() for clock in _CLOCKS]
                texts.add(engines[place].complete(prompt, _SAMPLING).text)
                for own, clock, start in zip(fastest, _CLOCKS, begun, strict=True):
                    own[place] = min(own[place], clock() - start)
        if number >= _WARM_UP:
            for kept, own in zip(seconds, fastest, strict=True):
                for one, least in zip(kept, own, strict=True):
                    one.append(least)
        if len(texts) > 1:
            raise RuntimeError(f"version and base do not do the same work: {prompt!r} gives {sorted(texts)}")
    return seconds


def render(costs: Sequence[Cost]) -> list[str]:
    """The table."""
    said = (
        f"A version of {EDITS} ROME edits, asked in turn with its base on one thread: greedy answers of at most "
        f"{_SAMPLING.max_new_tokens} tokens, of each request the fastest of {_REPETITIONS}. Required: latency at most "
        f"{MOST_LATENCY:g} of the base's, a file of at most {MOST_BYTES:.0%} of the base's bytes. In memory a version "
        "owns the edited weights, whole, and shares all others with the base."
    )
    columns = (
        "model, parameters, requests, base (median ms), version (median ms), latency against the base, "
        "processor time against the base, file (bytes), "
        "share of the base's bytes, memory beside the base (bytes)"
    )
    return [
        said,
        "",
        f"| {columns.replace(', ', ' | ')} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {cost.model} | {cost.parameters / 1e6:.0f} million | {cost.requests} | {cost.base_ms:.2f} | "
            f"{cost.version_ms:.2f} | {cost.latency:.3f} | {cost.processor:.3f} | {cost.version_bytes:,} | "
            f"{cost.share:.3%} | {cost.memory_bytes:,} |"
            for cost in costs
        ),
    ]


def _bytes(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--requests", type=int, default=150, help="prompts on the bundle; a sixth of them on the other model"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
