"""What was acknowledged survives the end of any process; the whole measurement is `python -m benchmarks.crashes`."""

from __future__ import annotations

from benchmarks import crashes


def test_whatever_moment_the_api_is_killed_at_every_acknowledged_write_is_there_and_no_other_is_half_there():
    outcome = crashes.api_killed(3, seed=1)
    assert outcome.wrong == []
    assert (len(outcome.seconds), outcome.acknowledged > 3, outcome.unacknowledged > 0) == (2, True, True)


def test_when_postgresql_is_restarted_the_api_refuses_with_503_and_then_goes_on_with_nothing_lost():
    outcome = crashes.postgresql_restarted(2, seed=1)
    assert outcome.wrong == []
    assert (len(outcome.seconds), outcome.acknowledged > 2, outcome.unavailable > 0) == (2, True, True)
