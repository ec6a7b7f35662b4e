"""Figures with their uncertainty: shares of cases, and means by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

Sample = tuple[Sequence[float], Sequence[Hashable]]
"""Values of probes, and the case of each."""

_DRAWN_AT_ONCE = 500_000
"""Cases, over all the resamples of a block: some tens of megabytes."""

_Z = 1.96
"""Of the normal distribution, for 95%."""


@dataclass(frozen=True, slots=True)
class Share:
    """Hits among cases, of which there is at least one."""

    hits: int
    cases: int

    @classmethod
    def of(cls, hits: list[bool]) -> Share:
        """The share of True.

        Raises:
            ValueError: The list is empty.
        """
        if not hits:
            raise ValueError("a share needs at least one case")
        return cls(sum(hits), len(hits))

    @property
    def value(self) -> float:
        """The share itself, in [0, 1]."""
        return self.hits / self.cases

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% score interval (Wilson 1927), which holds for few cases and for shares near 0 and 1."""
        n, p = self.cases, self.value
        centre = (p + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
        half = _Z * sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n)) / (1 + _Z * _Z / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}] of {self.cases:,}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, its 95% interval, and the number of cases that it rests on."""

    value: float
    low: float
    high: float
    cases: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.cases:,}"


def bootstrap(values: Sequence[float], *, groups: Sequence[Hashable], resamples: int = 1000, seed: int = 0) -> Estimate:
    """The mean over all probes, and its 95% percentile interval (Efron and Tibshirani 1993, ch. 13).

    Whole cases are resampled, since the probes of a case stand or fall together and are no independent evidence. The
    interval has no width where the cases do not differ, and so for a single one: it then says nothing.

    Args:
        values: One for each probe.
        groups: The case of each probe.
        resamples: How many times as many cases are drawn, with replacement.
        seed: Of the draws: the same seed, the same interval.

    Raises:
        ValueError: There are no values, or not as many groups.
    """
    return bootstrap_statistic([(values, groups)], lambda means: means[:, 0], resamples=resamples, seed=seed)


def bootstrap_statistic(
    samples: Sequence[Sample],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A statistic of the means of several samples, such as their harmonic mean, with its interval as in `bootstrap`.

    Each resample draws cases, each with all its probes in all samples, and recomputes means and statistic. One that
    has no probe of some sample is left out.

    Args:
        samples: Values with their cases, for each sample.
        statistic: From means, [n, samples], to the statistic of each row, [n].
        resamples: How many.
        seed: Of the draws.

    Raises:
        ValueError: A sample is empty, or has not as many groups as values.
    """
    if not all(len(values) for values, _ in samples):
        raise ValueError("a mean needs at least one value")
    totals = _totals(samples)
    value = float(statistic(_means(totals[None]))[0])
    spread = np.concatenate([statistic(means) for means in _resampled(totals, resamples, seed)])
    low, high = np.percentile(spread, (2.5, 97.5))
    # Rounding can set equal means apart by the last bit, on either side of the value.
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(totals))


def case_means(values: Sequence[float], groups: Sequence[Hashable]) -> Sample:
    """The mean of each case's probes, and the cases: what to bootstrap where each case is to count once."""
    by_case: dict[Hashable, list[float]] = {}
    for value, case in zip(values, groups, strict=True):
        by_case.setdefault(case, []).append(value)
    return [fmean(of_case) for of_case in by_case.values()], list(by_case)


def _totals(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Sum and number of each case's values in each sample: [cases, 2, samples]."""
    row = {case: place for place, case in enumerate(dict.fromkeys(case for _, groups in samples for case in groups))}
    totals = np.zeros((len(row), 2, len(samples)))
    for column, (values, groups) in enumerate(samples):
        rows = [row[case] for case in groups]
        totals[:, 0, column] = np.bincount(rows, weights=values, minlength=len(row))
        totals[:, 1, column] = np.bincount(rows, minlength=len(row))
    return totals


def _resampled(totals: NDArray[np.float64], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Means of the samples in each resample, in blocks: [n, samples]; the blocks make up all resamples."""
    rng, cases = np.random.default_rng(seed), len(totals)
    at_once = max(1, _DRAWN_AT_ONCE // cases)
    for done in range(0, resamples, at_once):
        drawn = rng.integers(cases, size=(min(at_once, resamples - done), cases))
        means = _means(totals[drawn])
        yield means[~np.isnan(means).any(axis=1)]


def _means(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over cases, of [n, cases, 2, samples]: [n, samples]; NaN where a sample has no value."""
    sums, counts = np.moveaxis(totals.sum(axis=1), 1, 0)
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = sums / counts
    return means
