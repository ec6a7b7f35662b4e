"""The benchmark of versions, on a small random model."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import GPT2Config

from benchmarks import costs, versions
from editors.model.loading import load_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = GPT2Config(n_embd=32, n_layer=4, n_head=2, n_positions=128, initializer_range=0.3)
    folder = costs.random_gpt2(tmp_path_factory.mktemp("models") / "gpt2", config)
    settings = {"model": load_base(folder, device="cpu").fingerprint, "settings": {"rome": {"prefixes": []}}}
    (folder / "rome.settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_a_version_is_measured_beside_its_base_and_both_are_in_the_table(folder):
    cost = versions.measured(folder, [folder], 4)
    assert cost.requests == 4
    assert cost.base_ms > 0 and 0 < cost.latency == cost.version_ms / cost.base_ms
    site = 32 * 128 * 4
    assert (cost.memory_bytes, cost.base_bytes > 10 * site) == (site, True)
    assert cost.version_bytes > 10 * (32 + 128) * 4
    assert any(line.startswith("| gpt2 | ") and f"{cost.latency:.3f}" in line for line in versions.render([cost]))


def test_a_version_that_answers_otherwise_is_not_compared(folder, monkeypatch):
    monkeypatch.setattr(versions, "_SMALL", 10.0)
    with pytest.raises(RuntimeError, match="do not do the same work"):
        versions.measured(folder, [folder], 20)


def test_the_version_holds_ten_edits_of_rank_one_and_answers_otherwise_until_it_is_made_quiet(folder):
    base = load_base(folder, device="cpu")
    delta = versions.version_of_ten(base, [folder])
    (change,) = delta.changes.values()
    assert (change.rank, len(delta.origins)) == (10, 10)
    (still,) = versions.quiet(delta).changes.values()
    assert torch.equal(still.v, change.v) and float(still.product().norm()) < 1e-5 * float(change.product().norm())
