"""The lecture's comparison, on atlas-2018: `python -m benchmarks.comparison`.

Editors that change weights (FT, FT+KL, FT with training data, ROME, MEND) beside those that keep edits in a memory
(LU, RP, SERAC), on the four problems of SERAC's paper: with one edit and with 10 at once, and for QA with 1 to 125. All
answer the same probes of the same cases, of subjects that nothing was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

import demo
from benchmarks.comparison_report import FT, FT_DATA, FT_KL, MEND, ROME, Row, publish, render
from benchmarks.costs import Cost, costing
from benchmarks.problems import CONV_SENT, FC, QA, QA_HARD, Problem, problem
from benchmarks.serac import Bench, load_bench
from benchmarks.serac_report import LU, NO_EDITS, RP, SERAC, Measured
from benchmarks.weights import Rephrase, WeightEditing
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
_KL_FACTOR = 1.0
_PROMPTS_OF_TRAINING_DATA = 3
_IN_MEMORY = (LU, RP, SERAC, NO_EDITS)


@dataclass(kw_only=True)
class Contestant:
    """A method under measurement: puts a group's edits in force, and keeps what that cost."""

    name: str
    apply: Apply
    costs: list[tuple[int, Cost]] = field(default_factory=list)
    editing: WeightEditing | None = None


def main() -> None:
    """Measure, print the tables, and write docs/benchmarks/comparison.md, .json and .svg."""
    arguments = _arguments()
    base = load_base(demo.BUNDLE)
    bench = load_bench(arguments.classifier, arguments.counterfactual)
    rows: list[Row] = []
    for name in (QA, QA_HARD, FC, CONV_SENT):
        posed = problem(name, cases=max(_BATCHES.values()), embed=bench.embed)
        for size in _BATCHES if name == QA else _FEW:
            some = replace(posed, cases=posed.cases[: min(_BATCHES[size], arguments.cases)])
            rows += tqdm(_rows(base, bench, some, size), desc=f"{name}, {size} at once", unit="method")
    if arguments.quick:
        print("\n".join(render(rows)))
    else:
        publish(rows)


def _rows(base: BaseModel, bench: Bench, posed: Problem, size: int) -> Iterator[Row]:
    measures = (
        ["sentiment_success", "sentiment_drawdown", "drawdown"] if posed.of_mood else ["edit_success", "drawdown"]
    )
    groups = grouped(posed.cases, size, seed=0)
    for one in _contestants(base, bench, posed):
        records = Harness(groups, bench.base, one.apply, fields_of(measures), reader=bench.reader).run()
        found = Measured(problem=posed.name, method=one.name, edits=size, records=records, cases=posed.cases)
        refused = 0 if one.editing is None else one.editing.refused
        yield Row(measured=found, costs=tuple(one.costs), refused=refused)


def _contestants(base: BaseModel, bench: Bench, posed: Problem) -> Iterator[Contestant]:
    """Those that can do the problem: a weight editor needs a prompt and what should follow it."""
    if posed.name in (QA, QA_HARD):
        for name, editing in _weight_editing(base, posed).items():
            yield Contestant(name=name, apply=editing.apply, costs=editing.costs, editing=editing)
    for name, held in bench.methods(posed).items():
        if name in _IN_MEMORY:
            yield _in_memory(name, held)


def _in_memory(name: str, held: Callable[..., Subject]) -> Contestant:
    costs: list[tuple[int, Cost]] = []

    def apply(group: Sequence[Case]) -> nullcontext[Subject]:
        with costing() as cost:
            subject = held([case.edit for case in group if case.edit is not None])
        costs.append((len(group), cost))
        return nullcontext(subject)

    return Contestant(name=name, apply=apply, costs=costs)


def _weight_editing(base: BaseModel, posed: Problem) -> dict[str, WeightEditing]:
    assets = (demo.MEND.parent, demo.STATISTICS)

    def editing(name: str, rephrase: Rephrase | None = None, **settings: Any) -> WeightEditing:
        method = method_named(name)
        config = config_for(base, method, assets, **settings)
        return WeightEditing(base=base, method=method, config=config, assets=assets, rephrase=rephrase)

    return {
        FT: editing("fine_tuning"),
        FT_KL: editing("fine_tuning", kl_factor=_KL_FACTOR),
        FT_DATA: editing("fine_tuning", rephrase=_training_data(posed)),
        ROME: editing("rome"),
        MEND: editing("mend"),
    }


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
