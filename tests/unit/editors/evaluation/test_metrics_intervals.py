import random
import statistics

import numpy as np
import pytest

from editors.evaluation.counterfact import harmonic_mean
from editors.evaluation.intervals import Estimate, bootstrap, bootstrap_statistic, case_means


def by_brute_force(samples, statistic, resamples):
    """Draw cases one by one, pool the values of those drawn, and recompute."""
    rng = random.Random(7)
    cases = list(dict.fromkeys(case for _, groups in samples for case in groups))
    found = []
    for _ in range(resamples):
        drawn = rng.choices(cases, k=len(cases))
        pools = [[v for case in drawn for v, g in zip(*sample, strict=True) if g == case] for sample in samples]
        if all(pools):
            found.append(statistic([statistics.fmean(pool) for pool in pools]))
    cuts = statistics.quantiles(found, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def test_the_value_is_the_mean_over_probes_and_not_over_cases():
    estimate = bootstrap([1, 1, 1, 0], groups=["a", "a", "a", "b"])
    assert estimate.value == 3 / 4
    assert estimate.cases == 2


def test_two_cases_have_the_spread_that_can_be_counted():
    # Two draws of {a: 3 of 3, b: 0 of 1} give 6/6, 3/4, 3/4 or 0/2, each with a quarter of the probability.
    estimate = bootstrap([1, 1, 1, 0], groups=["a", "a", "a", "b"])
    assert (estimate.low, estimate.high) == (0, 1)


def test_the_interval_is_that_of_a_brute_force_bootstrap():
    rng = random.Random(0)
    groups = [f"case {number}" for number in range(25) for _ in range(rng.randint(1, 6))]
    leaning = {group: rng.random() for group in groups}
    values = [float(rng.random() < leaning[group]) for group in groups]
    estimate = bootstrap(values, groups=groups, resamples=4000)
    low, high = by_brute_force([(values, groups)], lambda means: means[0], 2000)
    assert estimate.value == pytest.approx(statistics.fmean(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.025)


def test_the_interval_of_a_harmonic_mean_is_that_of_a_brute_force_bootstrap():
    rng = random.Random(1)
    samples = []
    for share in (0.9, 0.6, 0.7):
        groups = [number for number in range(20) for _ in range(rng.randint(0, 4))]
        samples.append(([float(rng.random() < share) for _ in groups], groups))
    estimate = bootstrap_statistic(samples, harmonic_mean, resamples=4000)
    low, high = by_brute_force(samples, statistics.harmonic_mean, 2000)
    assert estimate.value == pytest.approx(statistics.harmonic_mean([statistics.fmean(v) for v, _ in samples]))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.025)


def test_most_intervals_hold_the_truth():
    rng = np.random.default_rng(3)
    held = 0
    for trial in range(200):
        estimate = bootstrap((rng.random(80) < 0.3).tolist(), groups=range(80), resamples=400, seed=trial)
        held += estimate.low <= 0.3 <= estimate.high
    assert 0.90 <= held / 200 <= 0.99


def test_probes_that_stand_or_fall_together_are_worth_one():
    values = [float(number % 3 == 0) for number in range(30)]
    alone = bootstrap(values, groups=range(30))
    tenfold = bootstrap([v for v in values for _ in range(10)], groups=[g for g in range(30) for _ in range(10)])
    taken_apart = bootstrap([v for v in values for _ in range(10)], groups=range(300))
    assert (tenfold.low, tenfold.high) == pytest.approx((alone.low, alone.high))
    assert taken_apart.high - taken_apart.low < (alone.high - alone.low) / 2


def test_the_same_seed_gives_the_same_interval():
    values = [0.1, 0.9, 0.4, 0.7, 0.2]
    once, again, other = (bootstrap(values, groups="abcde", seed=seed) for seed in (5, 5, 6))
    assert once == again
    assert (once.low, once.high) != (other.low, other.high)


def test_more_cases_than_fit_a_block_are_resampled_as_often(monkeypatch):
    values = [0.1, 0.9, 0.4, 0.7, 0.2]
    whole = bootstrap(values, groups=range(5), resamples=999)
    monkeypatch.setattr("editors.evaluation.intervals._DRAWN_AT_ONCE", 7)
    assert bootstrap(values, groups=range(5), resamples=999) == whole


@pytest.mark.parametrize("values", [[0.1], [0.1] * 3, [True], [False] * 4])
def test_where_nothing_varies_the_interval_is_the_value(values):
    estimate = bootstrap(values, groups=range(len(values)))
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.high - estimate.low == pytest.approx(0)
    assert estimate.value == pytest.approx(float(values[0]))


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap([], groups=[])


def test_each_value_has_a_case():
    with pytest.raises(ValueError, match="length"):
        bootstrap([1, 0], groups=["a"])


def test_a_case_counts_once_when_averaged_first():
    assert case_means([1, 1, 0, 0.5], ["a", "a", "a", "b"]) == ([pytest.approx(2 / 3), 0.5], ["a", "b"])
    assert case_means([], []) == ([], [])


def test_an_estimate_prints_with_its_interval():
    assert str(Estimate(0.9, 0.85, 0.951, 1200)) == "0.900 [0.850, 0.951] of 1,200"
