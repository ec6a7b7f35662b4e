"""A ledger that would miss a lost write could not show that there is none."""

from __future__ import annotations

import pytest

from benchmarks import crashes
from benchmarks.crashes import Outcome
from benchmarks.ledger import Ledger

OLD, NEW, OTHER = ("active", "old"), ("active", "new"), ("retracted", "old")


def ledger():
    return Ledger(acknowledged={"a": OLD, "b": OLD}, doubts=[{"a": OTHER, "c": NEW}])


@pytest.mark.parametrize(
    ("seen", "then"),
    [
        ({"a": OLD, "b": OLD}, {"a": OLD, "b": OLD}),
        ({"a": OTHER, "b": OLD, "c": NEW}, {"a": OTHER, "b": OLD, "c": NEW}),
    ],
)
def test_a_write_in_doubt_may_be_there_or_not_and_counts_from_then_on_as_it_was_found(seen, then):
    kept = ledger()
    assert kept.settle(seen) == []
    assert (kept.acknowledged, kept.doubts) == (then, [])
    assert kept.settle({}) != []


@pytest.mark.parametrize("seen", [{"a": OTHER, "b": OLD}, {"a": OLD, "b": OLD, "c": NEW}, {"a": NEW, "b": OLD}])
def test_a_write_in_doubt_of_which_a_part_is_there_is_found(seen):
    (said,) = ledger().settle(seen)
    assert said.startswith("a write that was not acknowledged is half there")


@pytest.mark.parametrize("found", [None, NEW, OTHER])
def test_an_acknowledged_write_that_is_not_as_it_was_acknowledged_is_found(found):
    seen = {"a": OLD} | ({} if found is None else {"b": found})
    assert ledger().settle(seen) == [f"b was acknowledged as {OLD} and is {found}"]


def test_what_was_found_wrong_is_counted_and_told_on_the_page():
    whole = Outcome(rounds=2, acknowledged=1234, unacknowledged=7, kept=3, seconds=[1.0, 2.0])
    broken = Outcome(rounds=1, seconds=[0.5], wrong=["e7 is there twice"])
    page = crashes.render(whole, broken)
    assert "| kill -9 of the API | 2 | 1,234 | 7 | 3 | 0 | 1.5 | 2.0 |" in page
    assert page[-2].endswith("| 1 | 0 | 0 | 0 | 1 | 0.5 | 0.5 |")
    assert page[-1] == "- e7 is there twice"
