"""SERAC against its baselines on the four problems of its paper: `python -m benchmarks.serac`.

Edits and probes are of subjects kept from all training, see `benchmarks/problems.py`. Memories of more edits than there
are cases are filled with other edits, and every memory is judged by the same probes, so that figures at different
numbers of edits can be compared. Some ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import demo
from benchmarks.memories import Once, deciding, hold, load_classifier
from benchmarks.problems import PROBLEMS, Problem, problem
from benchmarks.serac_report import LU, NO_EDITS, RP, SERAC, SIMILARITY_ONLY, Measured, publish, render
from editors.edit import EditDescriptor
from editors.evaluation.asked import Asked
from editors.evaluation.cases import Case
from editors.evaluation.fields import Fields, fields_of
from editors.evaluation.groups import grouped
from editors.evaluation.harness import Harness
from editors.evaluation.records import Record
from editors.evaluation.subject import Subject
from editors.evaluation.subjects import MemorySubject, ModelSubject, Ruling
from editors.model.loading import BaseModel, load_base, load_counterfactual
from editors.serac.baselines import HiddenStates, LookupCache, best_radius, lookup, retrieve_and_prompt
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import ScopeClassifier

_SIZES = (1, 10, 75, 1000, 10_000)
_GROUPS_AT_ONCE = 64
_MAX_NEW_TOKENS = 32

Hold = Callable[[Sequence[EditDescriptor]], MemorySubject]
"""A method: puts edits in force on the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is shared by all problems, methods and memories.

    Attributes:
        base: The base model; each prompt is asked once.
        reader: h_psi, which is asked each question once.
        embed: Sentence embeddings.
        keys: Hidden states of the base, LU's keys.
        classifier: Of SERAC.
        similarity: The calibrated similarity that SERAC is compared with; None where it is SERAC's own classifier.
    """

    base: Asked
    reader: Asked
    embed: Once[str]
    keys: Once[str]
    classifier: ScopeClassifier
    similarity: ScopeClassifier | None

    def methods(self, posed: Problem) -> dict[str, Hold]:
        """The methods by name, in the order of the tables; LU is tuned on the problem's tuning cases."""

        def serac(classifier: ScopeClassifier) -> Hold:
            def held(edits: Sequence[EditDescriptor]) -> MemorySubject:
                decide = deciding(hold(edits, self.embed), classifier, self.embed)
                return MemorySubject(self.base.subject, decide, counterfactual=self.reader.subject)

            return held

        methods = {SERAC: serac(self.classifier)}
        if self.similarity is not None:
            methods[SIMILARITY_ONLY] = serac(self.similarity)
        methods[RP] = self._prompting
        if not posed.of_mood:  # such an edit has no answer to look up; nor has the paper's table
            radius = self.radius(posed)
            methods[LU] = lambda edits: lookup(self.base.subject, LookupCache(edits, self.keys, radius))
        methods[NO_EDITS] = lambda _: MemorySubject(self.base.subject, _left_alone)
        return methods

    def radius(self, posed: Problem) -> float:
        """LU's radius for a problem, chosen on its tuning cases, all held at once."""
        cache = LookupCache([case.edit for case in posed.tuning if case.edit is not None], self.keys, 0.0)
        inside, _ = cache.distances([probe.prompt for case in posed.tuning for probe in case.in_scope])
        outside, _ = cache.distances([probe.prompt for case in posed.tuning for probe in case.out_of_scope])
        return best_radius(inside, outside)

    def _prompting(self, edits: Sequence[EditDescriptor]) -> MemorySubject:
        decide = deciding(hold(edits, self.embed), self.classifier, self.embed)
        return retrieve_and_prompt(self.base.subject, decide)


def main() -> None:
    """Measure, print the tables, and write docs/benchmarks/serac.md, .json and .svg."""
    arguments = _arguments()
    sizes = _SIZES[:3] if arguments.quick else tuple(arguments.sizes)
    shared: Path | None = arguments.shared if arguments.shared.is_dir() else None
    bench = load_bench(arguments.classifier, arguments.counterfactual)
    measured: list[Measured] = []
    radii: list[str] = []
    for name in tqdm(PROBLEMS, unit="problem"):
        posed = problem(name, cases=5 if arguments.quick else arguments.cases, embed=bench.embed, shared=shared)
        measured += measure(bench, posed, sizes)
        radii += [] if posed.of_mood else [f"{name} {bench.radius(posed):.2f}"]
    notes = [f"LU's radius, chosen on other subjects for the most ES - DD: {', '.join(radii)}."]
    if shared is None:
        notes.append(f"{arguments.shared} is absent: without CounterFact, memories end at about 5,500 edits.")
    if arguments.quick:
        print("\n".join(render(measured, notes)))
    else:
        publish(measured, notes)


def load_bench(classifier: Path, counterfactual: Path) -> Bench:
    """The bundle's base, with these models beside it.

    Args:
        classifier: A scope classifier's file.
        counterfactual: A causal language model's folder.

    Raises:
        InvalidClassifierFile, EncoderMismatch: The classifier cannot be used.
        ModelNotFound: There is no usable model in the folder.
    """
    base = load_base(demo.BUNDLE)
    return Bench(
        base=Asked(_subject(base)),
        reader=Asked(_subject(load_counterfactual(counterfactual))),
        embed=Once(SentenceEncoder().encode),
        keys=Once(HiddenStates(base.model, base.tokenizer)),
        classifier=load_classifier(classifier),
        similarity=None if classifier.resolve() == demo.SIMILARITY.resolve() else load_classifier(demo.SIMILARITY),
    )


def measure(bench: Bench, posed: Problem, sizes: Sequence[int]) -> Iterator[Measured]:
    """Judge every probe under every method, in memories of every size that the problem's edits can fill."""
    fields = fields_of(
        ["sentiment_success", "sentiment_drawdown", "drawdown"] if posed.of_mood else ["edit_success", "drawdown"]
    )
    methods = bench.methods(posed)
    for size in sorted(sizes, reverse=True):  # the largest has the fewest groups, and leaves little to ask for others
        if size > len(posed.cases) + len(posed.fillers):
            continue
        for name, held in methods.items():
            records = _records(bench, posed, held, size, fields)
            yield Measured(problem=posed.name, method=name, edits=size, records=records, cases=posed.cases)


def _records(bench: Bench, posed: Problem, held: Hold, size: int, fields: Fields) -> list[Record]:
    def apply(group: Sequence[Case]) -> nullcontext[Subject]:
        edits = [case.edit for case in group if case.edit is not None]
        return nullcontext(held([*edits, *posed.fillers[: size - len(edits)]]))

    groups = grouped(posed.cases, min(size, len(posed.cases)), seed=0)
    return Harness(groups, bench.base, apply, fields, reader=bench.reader, groups_at_once=_GROUPS_AT_ONCE).run()


def _left_alone(prompts: Sequence[str]) -> list[Ruling]:
    return [Ruling() for _ in prompts]


def _subject(loaded: BaseModel) -> ModelSubject:
    return ModelSubject(
        loaded.model, loaded.tokenizer, max_new_tokens=_MAX_NEW_TOKENS, context_length=loaded.context_length
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classifier", type=Path, default=demo.SCOPE_CLASSIFIER, help="a scope classifier's file")
    parser.add_argument("--counterfactual", type=Path, default=demo.COUNTERFACTUAL, help="folder of h_psi")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of CounterFact's records")
    parser.add_argument("--cases", type=int, default=240, help="most edits measured for each problem")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES), help="edits held at once")
    parser.add_argument("--quick", action="store_true", help="a few cases and small memories; writes nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
