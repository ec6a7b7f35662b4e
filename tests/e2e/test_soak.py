"""The soak run, made short."""

from __future__ import annotations

import httpx
import pytest

from benchmarks.among_edits import among_edits
from benchmarks.running import RunningServer
from benchmarks.serving_report import render_among
from benchmarks.soak import soak
from benchmarks.soak_report import figures, render
from benchmarks.soak_traffic import counted_by


def test_under_everything_at_once_nothing_is_lost_and_every_answer_is_as_it_must_be(server: RunningServer):
    outcome = soak(server, minutes=0.1, prompts=10, capacity_seconds=2, every=0.2)
    tally = outcome.tally
    assert tally.wrong == []
    assert tally.sent.total() == (tally.answered + tally.refused).total()
    assert {"out_of_scope", "edits"} <= tally.answered.keys()
    found = figures(outcome)
    assert found["rate"] == pytest.approx(found["capacity"] * 2 / 3)
    assert min(found["rate"], found["start_mebibytes"], found["samples"][-1]["files"]) > 0
    assert sum(line.startswith("| ") for line in render(outcome)) >= 2 * 3 + len(tally.sent)


def test_what_the_service_counts_is_read_by_method_and_handler(client: httpx.Client):
    before = counted_by(client.get("/metrics").text)
    edit = client.post("/edits", json={"prompt": "Who counts?", "target": "We do"}).json()
    assert client.delete(f"/edits/{edit['id']}").status_code == 204
    assert client.delete(f"/edits/{edit['id']}").status_code == 404
    after = counted_by(client.get("/metrics").text)
    assert after["POST", "/edits"] - before["POST", "/edits"] == 1
    assert after["DELETE", "/edits/{edit_id}"] - before["DELETE", "/edits/{edit_id}"] == 2


def test_among_edits_that_come_and_go_every_greedy_answer_is_the_engines_alone():
    among = among_edits(24, clients=8)
    assert (among.compared, among.wrong) == (24, [])
    assert among.edits >= 1
    (row,) = (line for line in render_among(among) if line.startswith("| 24 |"))
    assert row.endswith("| 0 |")
