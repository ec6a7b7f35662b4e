"""ROME on the bundle: `python -m benchmarks.rome`.

Facts of atlas-2018 are edited one at a time and asked again, freely and teacher-forced: by their own question, in other
words, and beside facts that should stay. Once with another answer of their relation as CounterFact has it, and once
with what has become of them since 2018, which often is a name that the base never read. Beside ROME as recommended for
this base: ROME as its authors set it, at the same layer; with their keys; and fine-tuning of one layer. Some twenty
minutes on two idle cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from tqdm import tqdm

import demo
from benchmarks.cases import UNTRAINED, counterfacts, drawn
from benchmarks.estimates import cell, plain, share
from benchmarks.report import write
from benchmarks.weights import WeightEditing
from demo.suites import ANY_OTHER, SAME_RELATION, SAME_SUBJECT
from editors.evaluation.asked import Asked
from editors.evaluation.cases import EDIT, PARAPHRASE, Case
from editors.evaluation.datasets.forms import NEIGHBOUR
from editors.evaluation.fields import fields_of
from editors.evaluation.harness import Harness
from editors.evaluation.intervals import Estimate
from editors.evaluation.records import GENERATED, TEACHER_FORCED, Mode, Record
from editors.evaluation.subjects import ModelSubject
from editors.evaluation.success import disagreed, succeeded
from editors.methods.rome.config import RomeConfig
from editors.model.loading import BaseModel, load_base
from editors.recommended import config_for
from editors.registry import method_named

_ASSETS: Final = (demo.STATISTICS,)
_COUNTERFACTS, _DRIFT = "another answer of the relation", "what has become of it since 2018"
_ROME, _AUTHORS, _KEYS, _FT = "ROME", "ROME, authors' settings", "ROME, authors' settings and keys", "FT, one layer"
_ROWS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "efficacy: the edited question": (EDIT,),
        "paraphrases": (PARAPHRASE, UNTRAINED),
        "of them, phrasings the base was trained on": (PARAPHRASE,),
        "of them, untrained phrasings": (UNTRAINED,),
        "neighbours unchanged": (NEIGHBOUR, SAME_RELATION),
        "same subject unchanged": (SAME_SUBJECT,),
        "any other fact unchanged": (ANY_OTHER,),
    }
)


@dataclass(frozen=True)
class Measured:
    """One method on one set of facts, edited one at a time.

    Attributes:
        facts: Which set.
        method: Which method.
        edits: How many.
        refused: Of them, how many the method gave up; they count as not made.
        seconds: Median of an edit.
        records: One for each probe.
    """

    facts: str
    method: str
    edits: int
    refused: int
    seconds: float
    records: Sequence[Record] = field(repr=False)

    def kept(self, forms: Sequence[str], mode: Mode) -> Estimate | None:
        """The share of these probes that are as they should be: the new answer in scope, the base's out of scope."""
        own = [record for record in self.records if record.form in forms]
        good = [
            float(bool(succeeded(record, mode)) if record.in_scope else not disagreed(record, mode)) for record in own
        ]
        return share(good, [record.case for record in own]) if own else None


def main() -> None:
    """Measure, print the tables, and write docs/benchmarks/rome.md and .json."""
    arguments = _arguments()
    base = load_base(demo.BUNDLE)
    asked = Asked(ModelSubject(base.model, base.tokenizer, max_new_tokens=32, context_length=base.context_length))
    sets = {
        _COUNTERFACTS: counterfacts(arguments.cases, seed=arguments.seed),
        _DRIFT: drawn(arguments.cases, seed=arguments.seed),
    }
    found = [
        measure(base, asked, facts, cases, name, editing)
        for facts, cases in sets.items()
        for name, editing in contestants(base).items()
    ]
    if arguments.quick:
        print("\n".join(render(found)))
    else:
        write("rome", "ROME", render(found), {"measured": figures(found)})


def contestants(base: BaseModel) -> dict[str, WeightEditing]:
    """What is compared, by name."""
    rome, tuning = method_named("rome"), method_named("fine_tuning")
    own: RomeConfig = config_for(base, rome, _ASSETS)
    configs: dict[str, Any] = {
        _ROME: own,
        _AUTHORS: RomeConfig(layer=own.layer),
        _KEYS: RomeConfig(layer=own.layer, original_keys=True),
    }
    editings = {
        name: WeightEditing(base=base, method=rome, config=config, assets=_ASSETS) for name, config in configs.items()
    }
    return {**editings, _FT: WeightEditing(base=base, method=tuning, config=config_for(base, tuning, _ASSETS))}


def measure(
    base: BaseModel, asked: Asked, facts: str, cases: Sequence[Case], name: str, editing: WeightEditing
) -> Measured:
    """Edit the cases one at a time, and judge every probe.

    Args:
        base: What is edited.
        asked: The base, and what it has answered so far.
        facts: What the set is called.
        cases: Of it.
        name: What the method is called.
        editing: The method.
    """
    fields = fields_of(["edit_success", "drawdown"])
    records = [
        record
        for case in tqdm(cases, desc=f"{name}: {facts}", unit="edit")
        for record in Harness([[case]], asked, editing.apply, fields).run()
    ]
    seconds = float(np.median([cost.seconds for _, cost in editing.costs]))
    return Measured(facts, name, len(cases), editing.refused, seconds, records)


def render(found: Sequence[Measured]) -> list[str]:
    """The tables, in Markdown."""
    lines = [
        "One edit at a time; shares of probes, with 95% intervals by the bootstrap over edits. In scope a probe counts",
        "when it gets the new answer, out of scope when its answer is the base's, to the letter. Neighbours are facts",
        "of the same relation, with the old answer or another.",
    ]
    for facts in dict.fromkeys(one.facts for one in found):
        own = [one for one in found if one.facts == facts]
        for mode in (GENERATED, TEACHER_FORCED):
            how = "freely generated" if mode == GENERATED else "teacher-forced"
            lines += ["", f"## Edited to {facts}: {own[0].edits} facts, {how}", ""]
            lines += [" | ".join(["|", *(one.method for one in own)]) + " |", "| --- " * (1 + len(own)) + "|"]
            lines += [
                " | ".join([f"| {row}", *(cell(one.kept(forms, mode)) for one in own)]) + " |"
                for row, forms in _ROWS.items()
            ]
            if mode == GENERATED:
                lines.append(" | ".join(["| given up", *(str(one.refused) for one in own)]) + " |")
                lines.append(" | ".join(["| seconds an edit, median", *(f"{one.seconds:.2f}" for one in own)]) + " |")
    return lines


def figures(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "facts": one.facts,
            "method": one.method,
            "edits": one.edits,
            "refused": one.refused,
            "seconds": one.seconds,
            **{
                mode: {row: plain(one.kept(forms, mode)) for row, forms in _ROWS.items()}
                for mode in (GENERATED, TEACHER_FORCED)
            },
        }
        for one in found
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="facts of each set")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing of cases")
    parser.add_argument("--quick", action="store_true", help="print the tables and write nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
