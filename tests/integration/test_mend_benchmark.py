"""The benchmark of MEND, with a few cases, and an editor that has learnt nothing."""

from __future__ import annotations

import json

import pytest
from transformers import GPT2Config

from benchmarks import mend
from benchmarks.mend_report import UNTRAINED, figures, render
from demo.facts import load_world
from editors.evaluation.asked import Asked
from editors.evaluation.cases import EDIT, PARAPHRASE
from editors.evaluation.records import GENERATED, TEACHER_FORCED
from editors.evaluation.subjects import ModelSubject
from editors.methods.mend.config import MendConfig
from editors.model.loading import load_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128)
    return mend.random_gpt2(tmp_path_factory.mktemp("models") / "gpt2", config)


@pytest.fixture(scope="module")
def measured(folder):
    base = load_base(folder, device="cpu")
    asked = Asked(ModelSubject(base.model, base.tokenizer, max_new_tokens=4))
    cases = mend.drawn(5, seed=0)
    return [mend.measure(base, asked, folder, cases, size, MendConfig(steps=2)) for size in (1, 2)]


def test_phrasings_that_the_base_never_saw_are_told_apart():
    unseen = {prompt for fact in load_world().facts for prompt in fact.held_out_prompts}
    for case in mend.drawn(20, seed=0):
        assert {probe.form for probe in case.in_scope} == {EDIT, PARAPHRASE, UNTRAINED}
        assert all((probe.prompt in unseen) == (probe.form == UNTRAINED) for probe in case.in_scope)
    assert mend.drawn(3, seed=0) == mend.drawn(20, seed=0)[:3]


def test_a_batch_that_cannot_be_filled_is_left_out(measured):
    assert [(own.size, own.batches) for own in measured] == [(1, 5), (2, 2)]
    assert [len({record.case for record in own.records}) for own in measured] == [5, 4]


def test_what_an_untrained_editor_does_is_measured_in_both_modes(measured):
    for own in measured:
        assert all(0 <= own.success(mode).value <= 1 for mode in (GENERATED, TEACHER_FORCED))
        assert own.drawdown(GENERATED).cases == own.size * own.batches
        assert own.drawdown(TEACHER_FORCED).value <= own.drawdown(GENERATED).value
    assert measured[0].drop.value == 0  # a random model knows nothing that an edit could take from it


def test_tables_and_figures_tell_of_every_size(measured, folder):
    cost = mend.timed(folder, folder)
    assert cost.parameters > 0
    assert 0 < cost.seconds <= cost.slowest
    editor = folder / "mend.safetensors"
    lines = render(measured, measured[:1], [cost], editor)
    assert "| edits at once | 1 | 2 |" in lines
    assert "| the networks' step alone | 1 |" in lines
    assert any(line.startswith(f"| {cost.model} |") for line in lines)
    told = json.loads(json.dumps(figures(measured, measured[:1], [cost], editor)))
    assert told["settled"]["2"]["generated"]["es"]["value"] == measured[1].success(GENERATED).value
    assert told["editor_bytes"] == editor.stat().st_size
