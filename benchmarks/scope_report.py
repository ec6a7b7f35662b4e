"""What the benchmark of scope alone found: recall, false positives, ranking and calibration, with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.estimates import cell, plain, share
from editors.evaluation.intervals import Estimate
from editors.serac.calibration import lowest_threshold
from editors.serac.training.metrics import FALSE_POSITIVES, area_under_curve, average_precision, calibration_error

_RESAMPLES = 200

Row = tuple[float, bool, str, str]
"""Beta, whether in scope, kind, and subject of the edit."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A set as one classifier judges it: beta, label, kind and subject of each input, [n].

    Attributes:
        threshold: The classifier's own, as shipped.
    """

    name: str
    classifier: str
    threshold: float
    betas: NDArray[np.float64]
    labels: NDArray[np.bool_]
    kinds: NDArray[np.str_]
    subjects: NDArray[np.str_]

    @classmethod
    def of(cls, name: str, classifier: str, threshold: float, rows: Iterable[Row]) -> Judged:
        """From its rows."""
        betas, labels, kinds, subjects = zip(*rows, strict=True)
        return cls(name, classifier, threshold, np.array(betas), np.array(labels), np.array(kinds), np.array(subjects))

    def accepted(self, *, in_scope: bool, kind: str | None = None) -> Estimate | None:
        """Share that the shipped threshold accepts: recall in scope, false positives out of it; None without inputs."""
        chosen = (self.labels == in_scope) & (True if kind is None else self.kinds == kind)
        if not chosen.any():
            return None
        return share((self.betas[chosen] >= self.threshold).tolist(), self.subjects[chosen].tolist())

    @cached_property
    def statistics(self) -> dict[str, Estimate]:
        """Ranking and calibration, and the recall that each share of false positives allows; subjects are resampled."""
        wanted: dict[str, Callable[[NDArray[np.float64], NDArray[np.bool_]], float]] = {
            "auc": area_under_curve,
            "ap": average_precision,
            "ece": calibration_error,
            **{f"recall at {fp:.1%}": _recall_at(fp) for fp in FALSE_POSITIVES},
        }
        drawn = list(self._resampled())
        return {name: self._estimate(statistic, drawn) for name, statistic in wanted.items()}

    def _estimate(
        self, statistic: Callable[[NDArray[np.float64], NDArray[np.bool_]], float], drawn: Sequence[NDArray[np.intp]]
    ) -> Estimate:
        value = statistic(self.betas, self.labels)
        low, high = np.percentile([statistic(self.betas[rows], self.labels[rows]) for rows in drawn], (2.5, 97.5))
        return Estimate(value, min(value, float(low)), max(value, float(high)), len(np.unique(self.subjects)))

    def _resampled(self) -> Iterator[NDArray[np.intp]]:
        """Rows of as many subjects as there are, drawn with replacement; draws of one class alone are left out."""
        _, of_subject = np.unique(self.subjects, return_inverse=True)
        order = np.argsort(of_subject, kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(of_subject))[:-1])
        rng = np.random.default_rng(0)
        for _ in range(_RESAMPLES):
            drawn = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
            if 0 < self.labels[drawn].sum() < len(drawn):
                yield drawn


def figures(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Every figure, for machines."""
    return [
        {
            "set": one.name,
            "classifier": one.classifier,
            "threshold": one.threshold,
            "recall": plain(one.accepted(in_scope=True)),
            "false_positives": plain(one.accepted(in_scope=False)),
            **{name.replace(" ", "_"): asdict(estimate) for name, estimate in one.statistics.items()},
            "by_kind": [
                {"kind": kind, "in_scope": inside, "accepted": plain(one.accepted(in_scope=inside, kind=kind))}
                for kind, inside in _kinds(one)
            ],
        }
        for one in judged
    ]


def render(judged: Sequence[Judged], notes: Sequence[str]) -> list[str]:
    """The tables, in Markdown."""
    return [
        "Recall: share of in-scope inputs that are accepted, at the threshold as shipped; FP: of out-of-scope inputs.",
        "With edits in memory an input counts as recalled when its own edit answers, and as a false positive when any",
        "does. ECE: expected calibration error. 95% intervals over the edits' subjects.",
        "",
        *(line for note in notes for line in (note, "")),
        *_overall(judged),
        *_recalls(judged),
        *_by_kind(judged),
    ]


def _overall(judged: Sequence[Judged]) -> list[str]:
    lines = ["| set | classifier | recall | FP | AUC | AP | ECE |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for one in judged:
        found = one.statistics
        cells = [one.accepted(in_scope=True), one.accepted(in_scope=False), found["auc"], found["ap"], found["ece"]]
        lines.append(f"| {one.name} | {one.classifier} | {' | '.join(map(cell, cells))} |")
    return [*lines, ""]


def _recalls(judged: Sequence[Judged]) -> list[str]:
    names = [f"recall at {fp:.1%}" for fp in FALSE_POSITIVES]
    lines = ["## Recall, were the threshold chosen on the set itself for a share of false positives", ""]
    lines += [f"| set | classifier | {' | '.join(names)} |", f"| --- | --- |{' --- |' * len(names)}"]
    for one in judged:
        found = one.statistics
        lines.append(f"| {one.name} | {one.classifier} | {' | '.join(cell(found[name]) for name in names)} |")
    return [*lines, ""]


def _by_kind(judged: Sequence[Judged]) -> list[str]:
    lines = ["## Share accepted, by kind of input", ""]
    for name in dict.fromkeys(one.name for one in judged):
        shown = [one for one in judged if one.name == name]
        lines += [f"### {name}", "", f"| kind | inputs | {' | '.join(one.classifier for one in shown)} |"]
        lines += [f"| --- | --- |{' --- |' * len(shown)}"]
        for kind, inside in _kinds(shown[0]):
            count = int(((shown[0].kinds == kind) & (shown[0].labels == inside)).sum())
            cells = [cell(one.accepted(in_scope=inside, kind=kind)) for one in shown]
            side = "in" if inside else "out of"
            lines.append(f"| {kind}, {side} scope | {count} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _recall_at(false_positives: float) -> Callable[[NDArray[np.float64], NDArray[np.bool_]], float]:
    return lambda betas, labels: float((betas[labels] >= lowest_threshold(betas, labels, false_positives)).mean())


def _kinds(one: Judged) -> list[tuple[str, bool]]:
    """Kinds of input with their side, in scope first."""
    pairs = set(zip(one.kinds.tolist(), one.labels.tolist(), strict=True))
    return sorted(pairs, key=lambda pair: (not pair[1], pair[0]))
