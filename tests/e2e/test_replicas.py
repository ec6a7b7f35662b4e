"""Two replicas on one database agree; the whole measurement is `python -m benchmarks.replicas`."""

from __future__ import annotations

import pytest

from benchmarks import replicas
from benchmarks.replicas_report import Outcome, render


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return replicas.measured("killed in the middle", edits=4, trials=20, prompts=2, revocations=1)


def test_what_is_posted_and_retracted_on_one_replica_is_seen_on_the_other_and_no_read_is_older_than_it_asked_for(
    outcome,
):
    assert outcome.wrong == []
    assert (len(outcome.posted), len(outcome.retracted), outcome.trials) == (4, 4, 20)


def test_of_clients_that_contest_a_prompt_on_both_replicas_one_wins_and_the_others_are_told_who(outcome):
    assert outcome.wrong == []
    assert outcome.prompts == 2


def test_a_revoked_key_opens_nothing_on_either_replica(outcome):
    assert len(outcome.revoked) == 1


def test_the_page_has_a_row_for_each_redis_and_tells_what_was_wrong(outcome):
    broken = Outcome(redis="absent", posted=[1.0, 2.0], retracted=[1.0, 3.0], revoked=[7.0], wrong=["two won"])
    page = render([outcome, broken])
    assert any(row.startswith("| killed in the middle | 4 | ") and row.endswith(" | 0 |") for row in page)
    assert "| absent | 2 | 2 | 2 | 2 | 3 | 0 | 0 | 1 | 7 | 1 |" in page
    assert page[-1] == "- two won"
