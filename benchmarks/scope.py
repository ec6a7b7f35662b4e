"""Scope alone, on what no classifier was trained on: `python -m benchmarks.scope`.

Four sets: zsRE and CounterFact, where the whole decision is judged (retrieve, then classify) with many edits in memory;
the hard set of `demo/scope/hard.jsonl` and the pairs that the project keeps for validation, where pairs are judged.
The trained classifier and the calibrated similarity stand side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from random import Random

from tqdm import tqdm

import demo
from benchmarks.memories import CANDIDATES, Once, hold, load_classifier
from benchmarks.report import write
from benchmarks.scope_report import Judged, figures, render
from demo.scope.kinds import Pair
from demo.scope.names import load_names
from demo.scope.pairs import pairs
from demo.scope.shared import Record, load_shared
from demo.scope.wording import load_wording
from editors.edit import QuestionAnswer, Statement
from editors.serac.decide import ScopeDecision, decide
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import ScopeClassifier, ScopePair

TRAINED, SIMILAR = "trained", "similarity"

_HARD = Path(demo.__file__).parent / "scope" / "hard.jsonl"
_AT_ONCE = 64


def main() -> None:
    """Measure, print the tables, and write docs/benchmarks/scope.md and .json."""
    arguments = _arguments()
    classifiers = {SIMILAR: load_classifier(demo.SIMILARITY)}
    if arguments.classifier.resolve() != demo.SIMILARITY.resolve():
        classifiers = {TRAINED: load_classifier(arguments.classifier), **classifiers}
    shared: Path | None = arguments.shared if arguments.shared.is_dir() else None
    share = 20 if arguments.quick else 1
    judged = measure(
        classifiers,
        Once(SentenceEncoder().encode),
        shared=shared,
        edits=arguments.edits // share,
        drawn=arguments.pairs // share,
        written=None if not arguments.quick else 60,
    )
    notes = [] if shared else [f"{arguments.shared} is absent: zsRE and CounterFact are left out."]
    lines = render(judged, notes)
    if arguments.quick:
        print("\n".join(lines))
    else:
        write("scope", "The scope classifier alone", lines, {"figures": figures(judged), "notes": notes})


def measure(
    classifiers: dict[str, ScopeClassifier],
    embed: Once[str],
    *,
    shared: Path | None,
    edits: int,
    drawn: int,
    written: int | None = None,
) -> list[Judged]:
    """Judge every set under every classifier.

    Args:
        classifiers: By name.
        embed: Sentence embeddings.
        shared: Folder of zsRE and CounterFact; both are left out when None.
        edits: Most edits in a memory.
        drawn: Pairs drawn of the validation split.
        written: Pairs of the hard set; None takes all.
    """
    hard = _hard()[:written]
    kept = list(pairs(drawn, 0, of="validation", shared=shared))
    found = [*_of_pairs("hard set", hard, classifiers, embed), *_of_pairs("validation pairs", kept, classifiers, embed)]
    if shared is None:
        return found
    counterfact, zsre = load_shared(shared, "validation", load_wording(load_names("validation")))
    return [
        *(_zsre(zsre.records[:edits], name, one, embed) for name, one in classifiers.items()),
        *(_counterfact(_drawn(counterfact.records, edits), name, one, embed) for name, one in classifiers.items()),
        *found,
    ]


def _zsre(records: Sequence[Record], name: str, classifier: ScopeClassifier, embed: Once[str]) -> Judged:
    """In scope are rephrases; out of scope are Natural Questions, and records' questions asked without their edits."""
    rephrased = [record.rephrase for record in records]
    judge = _Judge(records, classifier, embed)
    own, natural = judge.own(rephrased), judge.any([record.neighbour for record in records])
    absent = [judge.others(rephrased), judge.others([record.prompt for record in records])]
    subjects = [record.subject for record in records]
    return Judged.of(
        f"zsRE, {len(records):,} edits in memory",
        name,
        classifier.threshold,
        chain(
            zip(own, [True] * len(own), ["rephrase"] * len(own), subjects, strict=True),
            zip(natural, [False] * len(own), ["Natural Questions"] * len(own), subjects, strict=True),
            *(
                zip(one, [False] * len(own), ["question of another record"] * len(own), subjects, strict=True)
                for one in absent
            ),
        ),
    )


def _counterfact(records: Sequence[Record], name: str, classifier: ScopeClassifier, embed: Once[str]) -> Judged:
    """In scope are rephrases; out of scope questions of the same relation about subjects that no edit is about."""
    named = [record.subject for record in records]
    judge = _Judge(records, classifier, embed)
    own = judge.own([record.rephrase for record in records])
    apart = [record for record in records if not any(subject in record.neighbour for subject in named)]
    near = judge.any([record.neighbour for record in apart])
    return Judged.of(
        f"CounterFact, {len(records):,} edits in memory",
        name,
        classifier.threshold,
        chain(
            zip(own, [True] * len(own), ["rephrase"] * len(own), named, strict=True),
            zip(near, [False] * len(near), ["same relation"] * len(near), [r.subject for r in apart], strict=True),
        ),
    )


class _Judge:
    """The whole decision, retrieval and classifier, with the edits of these records in memory."""

    def __init__(self, records: Sequence[Record], classifier: ScopeClassifier, embed: Once[str]) -> None:
        edits = [QuestionAnswer(record.prompt, record.target, record.subject) for record in records]
        self._memory, self._classifier, self._embed = hold(edits, embed), classifier, embed

    def own(self, texts: Sequence[str]) -> list[float]:
        """For the i-th text the beta of the i-th edit; 0 where retrieval misses it or another edit comes first."""
        decisions = enumerate(self._decide(texts))
        return [d.candidates[0].beta if d.candidates[0].edit_id == i else 0.0 for i, d in decisions]

    def any(self, texts: Sequence[str]) -> list[float]:
        """For each text the highest beta of any edit."""
        return [decision.candidates[0].beta for decision in self._decide(texts)]

    def others(self, texts: Sequence[str]) -> list[float]:
        """For the i-th text the highest beta of any edit but the i-th."""
        return [
            max((c.beta for c in decision.candidates if c.edit_id != i), default=0.0)
            for i, decision in enumerate(self._decide(texts))
        ]

    def _decide(self, texts: Sequence[str]) -> list[ScopeDecision]:
        parts = (texts[start : start + _AT_ONCE] for start in tqdm(range(0, len(texts), _AT_ONCE), leave=False))
        return [
            decision
            for part in parts
            for decision in decide(
                self._memory,
                self._classifier,
                part,
                self._embed(part),
                k=CANDIDATES,
                default_threshold=self._classifier.threshold,
            )
        ]


def _of_pairs(
    name: str, given: Sequence[Pair], classifiers: dict[str, ScopeClassifier], embed: Once[str]
) -> list[Judged]:
    texts = [(pair.descriptor, pair.input) for pair in given]
    told_vectors, asked_vectors = embed([told for told, _ in texts]), embed([asked for _, asked in texts])
    cosines = (told_vectors * asked_vectors).sum(axis=1).tolist()
    read = [
        ScopePair(
            descriptor=Statement(pair.descriptor), matched_text=pair.descriptor, text=pair.input, similarity=cosine
        )
        for pair, cosine in zip(given, cosines, strict=True)  # of a descriptor its text alone is judged
    ]
    labels = [(pair.label, pair.kind, pair.subject) for pair in given]
    return [
        Judged.of(
            name,
            called,
            classifier.threshold,
            ((beta, *label) for beta, label in zip(classifier.beta(read), labels, strict=True)),
        )
        for called, classifier in classifiers.items()
    ]


def _hard() -> list[Pair]:
    """The pairs of the hard set, with their type of hardness for a kind, in an order that mixes the types."""
    rows = [json.loads(line) for line in _HARD.read_text(encoding="utf-8").splitlines()]
    drawn = [Pair(r["descriptor"], r["input"], r["label"] == 1, r["type"], r["subject"]) for r in rows]
    return Random(0).sample(drawn, len(drawn))


def _drawn(records: Sequence[Record], count: int) -> list[Record]:
    return Random(0).sample(records, min(count, len(records)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classifier", type=Path, default=demo.SCOPE_CLASSIFIER, help="the trained classifier's file")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of zsRE and CounterFact")
    parser.add_argument("--edits", type=int, default=1000, help="most edits in a memory")
    parser.add_argument("--pairs", type=int, default=10_000, help="pairs drawn of the validation split")
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything; writes nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
