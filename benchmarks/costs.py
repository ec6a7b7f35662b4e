"""What an edit costs: `python -m benchmarks.costs`.

Times one edit by every weight editor, on the bundle and on a random model of GPT-2 small's shape, each in a process of
its own whose memory tells of nothing else. What is made beforehand (key statistics, the trained editor) is not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

import demo
from benchmarks.cases import drawn, request_of
from benchmarks.report import write
from demo.statistics import texts
from editors.delta import install
from editors.errors import EditFailed
from editors.evaluation.cases import Case
from editors.method import Method
from editors.methods.mend.config import NetworkConfig
from editors.methods.mend.files import TrainedEditor, save
from editors.methods.mend.network import Networks
from editors.methods.rome.config import RomeConfig
from editors.model.loading import BaseModel, load_base
from editors.recommended import config_for
from editors.registry import METHODS, method_named
from editors.surgery import covariance

_EDITS = 10
_STATISTICS_TEXTS = 500
_DTYPES = ("float32", "bfloat16")
_PROMPTS_PER_STEP = 6
_KIBIBYTE, _MEBIBYTE = 1024, 2**20
_FORGET_THE_PEAK = "5"
"""What tells Linux to begin again with VmHWM (proc_pid_clear_refs(5))."""


@dataclass(slots=True)
class Cost:
    """What something took.

    Attributes:
        seconds: By the clock.
        processor_seconds: That processors worked on it, all of them together.
        peak_bytes: Most resident memory beyond that at its start.
    """

    seconds: float = 0.0
    processor_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """A model to edit.

    Attributes:
        folder: Its own.
        assets: Folders of what was made for it beforehand.
        dtype: It computes in.
    """

    folder: Path
    assets: tuple[Path, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What edits by one method on one model took.

    Attributes:
        model: Its name.
        parameters: Of the model.
        dtype: It computes in.
        method: In the registry, with settings that are not those recommended.
        seconds: Median of an edit made and installed.
        slowest: The longest.
        processor_seconds: The median.
        peak_bytes: The most.
    """

    model: str
    parameters: int
    dtype: str
    method: str
    seconds: float
    slowest: float
    processor_seconds: float
    peak_bytes: int


def main() -> None:
    """Measure, print the table, and write docs/benchmarks/costs.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=_EDITS, help="timed one by one")
    edits: int = parser.parse_args().edits
    with tempfile.TemporaryDirectory() as scratch:
        measured = [
            Measured(demo.BUNDLE, (demo.MEND.parent, demo.STATISTICS)),
            *(_random(Path(scratch) / dtype / "gpt2", dtype) for dtype in _DTYPES),
        ]
        found = [timed(one, name, edits) for one in measured for name in METHODS]
        found += [timed(one, "rome", edits, prompts_per_step=_PROMPTS_PER_STEP) for one in measured[1:]]
    write("costs", "What an edit costs", render(found, edits), {"edits": [asdict(one) for one in found]})


def random_gpt2(folder: Path, config: GPT2Config, *, dtype: str = "float32") -> Path:
    """Write a random model of GPT-2's architecture that reads as the bundle does, an untrained editor and statistics.

    Returns:
        The folder, which holds all of it.
    """
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo.BUNDLE).save_pretrained(folder)
    base = load_base(folder, device="cpu", dtype=dtype)
    network = NetworkConfig(blocks=min(3, config.n_layer))
    networks = Networks(network.sites(base), network)
    save(
        TrainedEditor(base=base.fingerprint, config=network, networks=networks, score=0.0), folder / "mend.safetensors"
    )
    site = base.anatomy.within(RomeConfig().layer_of(base.model.config), base.anatomy.mlp_out)
    covariance.collect(base, site, texts()[:_STATISTICS_TEXTS], folder=folder, progress=False)
    return folder


def _random(folder: Path, dtype: str) -> Measured:
    return Measured(random_gpt2(folder, GPT2Config(), dtype=dtype), (folder,), dtype)


def timed(measured: Measured, method: str, edits: int, **settings: Any) -> Edits:
    """Time edits of a model, each made and installed, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (measured, method, edits, settings))


def _timed(measured: Measured, name: str, edits: int, settings: dict[str, Any]) -> Edits:
    base, method = load_base(measured.folder, device="cpu", dtype=measured.dtype), method_named(name)
    config = config_for(base, method, measured.assets, **settings)
    assert base.fingerprint, "which is found out once, when a model is loaded"
    cases = drawn(edits + 1, seed=1)
    costs = [_edit(base, method, config, measured.assets, case) for case in cases][1:]  # the first warms up
    return Edits(
        model=base.name,
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
        dtype=measured.dtype,
        method=", ".join([name, *(f"{setting}={value}" for setting, value in settings.items())]),
        seconds=statistics.median(cost.seconds for cost in costs),
        slowest=max(cost.seconds for cost in costs),
        processor_seconds=statistics.median(cost.processor_seconds for cost in costs),
        peak_bytes=max(cost.peak_bytes for cost in costs),
    )


def _edit(base: BaseModel, method: Method[Any], config: Any, assets: Sequence[Path], case: Case) -> Cost:
    with costing() as cost, suppress(EditFailed):  # a random model may take no edit, when all has been tried
        install(base, method.prepare(base, [request_of(case)], config, assets=assets))
    return cost


@contextmanager
def costing() -> Iterator[Cost]:
    """Measure a block, which is filled in when it ends; Linux alone tells of memory."""
    cost = Cost()
    Path("/proc/self/clear_refs").write_text(_FORGET_THE_PEAK, encoding="ascii")
    held, wall, processor = _held("VmRSS"), time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds, cost.processor_seconds = time.perf_counter() - wall, time.process_time() - processor
        cost.peak_bytes = max(0, _held("VmHWM") - held)


def _held(what: str) -> int:
    """Memory of this process in bytes, as Linux tells it: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * _KIBIBYTE


def render(found: list[Edits], edits: int) -> list[str]:
    """The table, in Markdown."""
    return [
        f"{edits} edits of the drift set, each made and installed by itself. Settings are those recommended for the",
        "model, unless told. The random model's MEND editor is untrained and no edit holds there, so that all steps",
        "are taken: the most that an edit takes.",
        "",
        "| model | parameters | dtype | method | seconds, median | slowest | of a processor | memory beyond it |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {one.model} | {one.parameters / 1e6:.0f} million | {one.dtype} | {one.method} | {one.seconds:.3f} | "
            f"{one.slowest:.3f} | {one.processor_seconds:.3f} | {one.peak_bytes / _MEBIBYTE:.0f} MiB |"
            for one in found
        ),
    ]


if __name__ == "__main__":
    main()
