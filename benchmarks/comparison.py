"""The lecture's comparison, on atlas-2018: `python -m benchmarks.comparison`.

Editors that change weights (FT, FT+KL, FT with training data, ROME, MEND) beside those that keep edits in a memory
(LU, RP, SERAC), on the four problems of SERAC's paper: with one edit and with 10 at once, and for QA with 1 to 125. All
answer the same probes of the same cases, of subjects that nothing was trained on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tqdm import tqdm

import demo
from benchmarks.comparison_report import FT, FT_DATA, FT_KL, MEND, ORDER, ROME, Row, publish, render
from benchmarks.costs import Cost, costing
from benchmarks.problems import CONV_SENT, FC, QA, QA_HARD, Problem, problem
from benchmarks.serac import Bench, load_bench
from benchmarks.serac_report import LU, Measured
from benchmarks.weights import WeightEditing
from demo.facts import Drift, load_world
from editors.evaluation.cases import Case
from editors.evaluation.fields import fields_of
from editors.evaluation.groups import grouped
from editors.evaluation.harness import Apply, Harness
from editors.evaluation.subject import Subject
from editors.model.loading import BaseModel, load_base
from editors.recommended import config_for
from editors.registry import method_named

_BATCHES = MappingProxyType({1: 50, 5: 50, 10: 50, 25: 75, 75: 75, 125: 125})
"""Edits made at once, for QA, and how many cases are measured so: as many as an hour on two cores allows. MEND's Table
5 has these sizes but for 10, which is SERAC's Table 3."""
_FEW = (1, 10)
_PROMPTS_OF_TRAINING_DATA = 3
_IN_WEIGHTS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        FT: ("fine_tuning", {}),
        FT_KL: ("fine_tuning", {"kl_factor": 1.0}),
        FT_DATA: ("fine_tuning", {}),
        ROME: ("rome", {}),
        MEND: ("mend", {}),
    }
)
"""Methods that change weights: their names in the registry, and settings beside those recommended."""


@dataclass(kw_only=True)
class Contestant:
    """A method under measurement: puts a group's edits in force, and keeps what that cost."""

    apply: Apply
    costs: list[tuple[int, Cost]] = field(default_factory=list)
    editing: WeightEditing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A method on a problem, with so many edits at once."""

    problem: str
    method: str
    edits: int
    cases: int
    classifier: Path
    counterfactual: Path


def main() -> None:
    """Measure, print the tables, and write docs/benchmarks/comparison.md, .json and .svg."""
    arguments = _arguments()
    wanted = [
        Measurement(
            problem=name,
            method=method,
            edits=edits,
            cases=min(_BATCHES[edits], arguments.cases),
            classifier=arguments.classifier,
            counterfactual=arguments.counterfactual,
        )
        for name in (QA, QA_HARD, FC, CONV_SENT)
        for edits in (_BATCHES if name == QA else _FEW)
        for method in _methods(name)
    ]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), torch.set_num_threads, (1,)) as pool:
        rows = list(tqdm(pool.imap(_row, wanted), total=len(wanted), unit="measurement"))
        pool.close()
        pool.join()
    if arguments.quick:
        print("\n".join(render(rows)))
    else:
        publish(rows)


def _methods(problem: str) -> list[str]:
    """Those that can do a problem: weight editors need a prompt and what should follow it, LU an answer to look up."""
    return [
        name
        for name in ORDER
        if (problem in (QA, QA_HARD) or name not in _IN_WEIGHTS) and (problem != CONV_SENT or name != LU)
    ]


def _row(wanted: Measurement) -> Row:
    bench = _bench(wanted.classifier, wanted.counterfactual)
    posed = _posed(wanted.problem, bench)
    posed = replace(posed, cases=posed.cases[: wanted.cases])
    measures = (
        ["sentiment_success", "sentiment_drawdown", "drawdown"] if posed.of_mood else ["edit_success", "drawdown"]
    )
    groups = grouped(posed.cases, wanted.edits, seed=0)
    one = _in_weights(wanted.method, posed) if wanted.method in _IN_WEIGHTS else _in_memory(wanted.method, bench, posed)
    records = Harness(groups, bench.base, one.apply, fields_of(measures), reader=bench.reader).run()
    found = Measured(problem=posed.name, method=wanted.method, edits=wanted.edits, records=records, cases=posed.cases)
    refused = 0 if one.editing is None else one.editing.refused
    return Row(measured=found, costs=tuple(one.costs), refused=refused)


@cache
def _bench(classifier: Path, counterfactual: Path) -> Bench:
    return load_bench(classifier, counterfactual)


@cache
def _posed(name: str, bench: Bench) -> Problem:
    return problem(name, cases=max(_BATCHES.values()), embed=bench.embed)


@cache
def _base() -> BaseModel:
    return load_base(demo.BUNDLE)


def _in_memory(name: str, bench: Bench, posed: Problem) -> Contestant:
    costs: list[tuple[int, Cost]] = []
    held = bench.methods(posed)[name]

    def apply(group: Sequence[Case]) -> nullcontext[Subject]:
        with costing() as cost:
            subject = held([case.edit for case in group if case.edit is not None])
        costs.append((len(group), cost))
        return nullcontext(subject)

    return Contestant(apply=apply, costs=costs)


def _in_weights(name: str, posed: Problem) -> Contestant:
    method, settings = _IN_WEIGHTS[name]
    assets = (demo.MEND.parent, demo.STATISTICS)
    editing = WeightEditing(
        base=_base(),
        method=method_named(method),
        config=config_for(_base(), method_named(method), assets, **settings),
        assets=assets,
        rephrase=_training_data(posed) if name == FT_DATA else None,
    )
    return Contestant(apply=editing.apply, costs=editing.costs, editing=editing)


def _training_data(posed: Problem) -> Callable[[Case], tuple[str, ...]]:
    """Further phrasings of each edit's question, none of which its case asks."""
    facts: dict[str, Drift] = {entry.fact.prompts[0]: entry for entry in load_world().drift}

    def prompts(case: Case) -> tuple[str, ...]:
        asked = {probe.prompt for probe in case.probes}
        known = facts[case.edit.text].fact.prompts if case.edit is not None else ()
        return tuple(prompt for prompt in known[1:] if prompt not in asked)[:_PROMPTS_OF_TRAINING_DATA]

    return prompts


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classifier", type=Path, default=demo.SCOPE_CLASSIFIER, help="a scope classifier's file")
    parser.add_argument("--counterfactual", type=Path, default=demo.COUNTERFACTUAL, help="folder of h_psi")
    parser.add_argument("--cases", type=int, default=125, help="most cases measured with each number of edits")
    parser.add_argument("--quick", action="store_true", help="print the tables; write nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
