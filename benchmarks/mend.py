"""MEND on the bundle: `python -m benchmarks.mend`.

Edits facts of the drift set, of whose subjects the editor has seen nothing, one at a time and in batches, and asks both
models freely and teacher-forced: the edited questions, the same in phrasings that the base was trained on or not,
and facts that should stay. Then times an edit of the bundle and of a random model of GPT-2's shape, with the memory
that it takes. Some ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, PreTrainedModel

import demo
from benchmarks.mend_report import UNTRAINED, Batches, Cost, publish, render
from demo.facts import load_world
from demo.suites import drift
from editors.delta import install
from editors.edit import QuestionAnswer
from editors.evaluation.asked import Asked
from editors.evaluation.cases import Case
from editors.evaluation.fields import fields_of
from editors.evaluation.groups import grouped
from editors.evaluation.harness import Harness
from editors.evaluation.subject import Subject
from editors.evaluation.subjects import ModelSubject
from editors.method import EditRequest
from editors.methods.mend.config import MendConfig, NetworkConfig
from editors.methods.mend.editor import Mend
from editors.methods.mend.files import TrainedEditor, save
from editors.methods.mend.network import Networks
from editors.model.loading import BaseModel, load_base

_SIZES = (1, 5, 25, 75, 125)
_MAX_NEW_TOKENS = 32
_TIMED = 20
_KIBIBYTE = 1024
_FORGET_THE_PEAK = "5"
"""What tells Linux to begin again with VmHWM (proc_pid_clear_refs(5))."""


def main() -> None:
    """Measure, print the tables, and write docs/benchmarks/mend.md and .json."""
    arguments = _arguments()
    base, folder = load_base(demo.BUNDLE), arguments.editor.parent
    cases = drawn(arguments.cases, seed=arguments.seed)
    asked = Asked(_subject(base, base.model))
    sizes = [size for size in arguments.sizes if size <= len(cases)]
    step_alone = MendConfig(certainty=None)
    settled = [measure(base, asked, folder, cases, n, MendConfig()) for n in tqdm(sizes, desc="settled")]
    alone = [measure(base, asked, folder, cases, n, step_alone) for n in tqdm(sizes, desc="step alone")]
    with tempfile.TemporaryDirectory() as scratch:
        random = random_gpt2(Path(scratch) / "gpt2", GPT2Config())
        costs = [timed(demo.BUNDLE, folder), timed(random, random)]
    if arguments.quick:
        print("\n".join(render(settled, alone, costs, arguments.editor)))
    else:
        publish(settled, alone, costs, arguments.editor)


def drawn(count: int, *, seed: int) -> list[Case]:
    """Cases of the drift set, with phrasings that the base never saw told apart from those that it was trained on."""
    unseen = {prompt for fact in load_world().facts for prompt in fact.held_out_prompts}
    return [
        replace(case, in_scope=tuple(replace(p, form=UNTRAINED) if p.prompt in unseen else p for p in case.in_scope))
        for case in Random(seed).sample(drift(), min(count, len(drift())))
    ]


def measure(
    base: BaseModel, asked: Asked, assets: Path, cases: Sequence[Case], size: int, config: MendConfig
) -> Batches:
    """Edit the cases so many at a time, and judge every probe; a batch that cannot be filled is left out.

    Args:
        base: What is edited.
        asked: The base, and what it has answered so far.
        assets: Folder of the trained editor.
        cases: At least `size`.
        size: Edits in a batch.
        config: Of the edits.
    """

    def apply(group: Sequence[Case]) -> nullcontext[Subject]:
        delta = Mend().prepare(base, [request_of(case) for case in group], config, assets=[assets])
        return nullcontext(_subject(base, install(base, delta)))

    groups = [group for group in grouped(cases, size, seed=0) if len(group) == size]
    fields = fields_of(["edit_success", "drawdown"])
    return Batches(size, len(groups), Harness(groups, asked, apply, fields).run())


def request_of(case: Case) -> EditRequest:
    """The edit of a case."""
    assert isinstance(case.edit, QuestionAnswer), "the drift set has no others"
    return EditRequest(prompt=case.edit.prompt, target=case.edit.target, subject=case.subject)


def random_gpt2(folder: Path, config: GPT2Config) -> Path:
    """Write a random model of GPT-2's architecture, which reads as the bundle does, and an untrained editor of it."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo.BUNDLE).save_pretrained(folder)
    base = load_base(folder, device="cpu")
    network = NetworkConfig(blocks=min(3, config.n_layer))
    networks = Networks(network.sites(base), network)
    save(
        TrainedEditor(base=base.fingerprint, config=network, networks=networks, score=0.0), folder / "mend.safetensors"
    )
    return folder


def timed(model: Path, assets: Path) -> Cost:
    """Time edits of a model, each made and installed, in a process of its own whose memory tells of nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (model, assets))


def _timed(model: Path, assets: Path) -> Cost:
    base = load_base(model, device="cpu")
    assert base.fingerprint, "which is found out once, when a model is loaded"
    walls, busy = [], []
    held = _held("VmRSS")
    Path("/proc/self/clear_refs").write_text(_FORGET_THE_PEAK, encoding="ascii")
    for case in drawn(_TIMED, seed=1):
        wall, processor = time.perf_counter(), time.process_time()
        install(base, Mend().prepare(base, [request_of(case)], MendConfig(), assets=[assets]))
        walls.append(time.perf_counter() - wall)
        busy.append(time.process_time() - processor)
    return Cost(
        model=base.name,
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
        seconds=statistics.median(walls),
        slowest=max(walls),
        processor_seconds=statistics.median(busy),
        bytes=_held("VmHWM") - held,
    )


def _held(what: str) -> int:
    """Memory of this process in bytes, as Linux tells it: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * _KIBIBYTE


def _subject(base: BaseModel, model: PreTrainedModel) -> ModelSubject:
    return ModelSubject(model, base.tokenizer, max_new_tokens=_MAX_NEW_TOKENS, context_length=base.context_length)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--editor", type=Path, default=demo.MEND, help="the trained editor's file")
    parser.add_argument("--cases", type=int, default=200, help="edits measured")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES), help="edits in a batch")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing of cases")
    parser.add_argument("--quick", action="store_true", help="print the tables and write nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
