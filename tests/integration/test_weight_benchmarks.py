"""The benchmarks of weight editors, with a few cases, a tiny random base and a MEND editor that has learnt nothing."""

from __future__ import annotations

import json

import pytest
from transformers import GPT2Config

from benchmarks import bakes, comparison_report, costs, mend, rome
from benchmarks.cases import UNTRAINED, apart, counterfacts, drawn, request_of
from benchmarks.comparison_report import FT, MEND, ROME, Row
from benchmarks.mend_report import figures, render
from benchmarks.problems import QA
from benchmarks.serac_report import Measured
from benchmarks.weights import WeightEditing
from demo.facts import load_world
from demo.suites import ANY_OTHER, SAME_RELATION
from editors.evaluation.asked import Asked
from editors.evaluation.cases import EDIT, PARAPHRASE
from editors.evaluation.datasets.forms import NEIGHBOUR
from editors.evaluation.records import GENERATED, TEACHER_FORCED
from editors.evaluation.subjects import ModelSubject
from editors.methods.fine_tuning.config import FineTuningConfig
from editors.methods.mend.config import MendConfig
from editors.model.loading import load_base
from editors.registry import METHODS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128)
    return costs.random_gpt2(tmp_path_factory.mktemp("models") / "gpt2", config)


@pytest.fixture(scope="module")
def base(folder):
    return load_base(folder, device="cpu")


@pytest.fixture(scope="module")
def asked(base):
    return Asked(ModelSubject(base.model, base.tokenizer, max_new_tokens=4))


@pytest.fixture(scope="module")
def measured(base, asked, folder):
    cases = drawn(5, seed=0)
    return [mend.measure(base, asked, folder, cases, size, MendConfig(steps=2)) for size in (1, 2)]


def test_phrasings_that_the_base_never_saw_are_told_apart():
    unseen = {prompt for fact in load_world().facts for prompt in fact.held_out_prompts}
    for case in (*drawn(20, seed=0), *counterfacts(20, seed=0)):
        assert {EDIT, UNTRAINED} <= {probe.form for probe in case.in_scope} <= {EDIT, PARAPHRASE, UNTRAINED}
        assert all((probe.prompt in unseen) == (probe.form == UNTRAINED) for probe in case.in_scope)
    assert drawn(3, seed=0) == drawn(20, seed=0)[:3]


def test_a_counterfact_takes_another_answer_of_its_relation_and_leaves_neighbours_alone():
    world = load_world()
    for case in counterfacts(30, seed=1):
        relation, request = case.id.split("/")[0], request_of(case)
        assert request.target in world.objects[relation] and request.target != case.previous
        assert request.subject == case.subject
        forms = {probe.form for probe in case.out_of_scope}
        assert ANY_OTHER in forms and forms & {NEIGHBOUR, SAME_RELATION}
        assert all(probe.target == case.previous for probe in case.out_of_scope if probe.form == NEIGHBOUR)


def test_a_batch_that_cannot_be_filled_is_left_out(measured):
    assert [(own.size, own.batches) for own in measured] == [(1, 5), (2, 2)]
    assert [len({record.case for record in own.records}) for own in measured] == [5, 4]


def test_what_an_untrained_editor_does_is_measured_in_both_modes(measured):
    for own in measured:
        assert all(0 <= own.success(mode).value <= 1 for mode in (GENERATED, TEACHER_FORCED))
        assert own.drawdown(GENERATED).cases == own.size * own.batches
        assert own.drawdown(TEACHER_FORCED).value <= own.drawdown(GENERATED).value
    assert measured[0].drop.value == 0  # a random model knows nothing that an edit could take from it


def test_tables_and_figures_of_mend_tell_of_every_size(measured, folder):
    editor = folder / "mend.safetensors"
    lines = render(measured, measured[:1], editor)
    assert "| edits at once | 1 | 2 |" in lines
    assert "| the networks' step alone | 1 |" in lines
    told = json.loads(json.dumps(figures(measured, measured[:1], editor)))
    assert told["settled"]["2"]["generated"]["es"]["value"] == measured[1].success(GENERATED).value
    assert told["editor_bytes"] == editor.stat().st_size


def test_rome_is_measured_by_form_and_what_it_gives_up_is_counted(base, asked):
    editing = WeightEditing(base=base, method=METHODS["fine_tuning"], config=FineTuningConfig(layer=0, steps=3))
    found = rome.measure(base, asked, "a few", counterfacts(3, seed=0), "FT", editing)
    assert found.edits == 3 and found.seconds > 0
    assert found.refused + len(editing.costs) >= 3
    for mode in (GENERATED, TEACHER_FORCED):
        assert 0 <= found.kept((EDIT,), mode).value <= 1
    assert found.kept(("no such form",), GENERATED) is None
    told = "\n".join(rome.render([found]))
    assert "## Edited to a few: 3 facts, freely generated" in told and "| neighbours unchanged |" in told
    assert json.loads(json.dumps(rome.figures([found])))[0]["edits"] == 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_timed_in_a_process_of_its_own(folder, method):
    found = costs.timed(costs.Measured(folder, (folder,)), method, 1)
    assert found.method == method and found.parameters > 0
    assert 0 < found.seconds <= found.slowest and found.peak_bytes >= 0
    assert any(line.startswith(f"| {found.model} |") for line in costs.render([found], 1))


def test_the_comparison_shows_what_a_method_cannot_do_and_the_papers_figures_beside(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_report, "RESULTS", tmp_path)
    cost = ((1, costs.Cost(0.5, 0.4, 2**20)),)
    rows = [
        Row(
            measured=Measured(problem=QA, method=name, edits=size, records=measured[0].records, cases=drawn(5, seed=0)),
            costs=cost,
            refused=refused,
        )
        for name, refused in ((FT, 0), (ROME, 2), (MEND, 0))
        for size in (1, 10)
    ]
    text = "\n".join(comparison_report.render(rows))
    assert "| SERAC | cannot | cannot |" in text and "*MEND, in SERAC's paper*" in text
    assert "(2)" in text and "| 0.500 |" in text
    comparison_report.plot(rows)
    assert "</svg>" in (tmp_path / "comparison.svg").read_text()
    json.dumps(comparison_report.figures(rows))


@pytest.mark.parametrize("to_known_names", [False, True])
def test_draws_that_lie_apart_share_no_case(to_known_names):
    drawn_apart = [apart(10, draw, 5, to_known_names=to_known_names) for draw in range(5)]
    assert [len(cases) for cases in drawn_apart] == [10] * 5
    assert len({case.id for cases in drawn_apart for case in cases}) == 50
    with pytest.raises(ValueError, match="cannot be had"):
        apart(10, 0, 10_000, to_known_names=to_known_names)


def test_what_became_of_a_bake_is_told_by_draw_with_the_settings_that_are_not_the_recommended_ones():
    tried = bakes.Tried(state="done", answered=9, drawdown=0.025, relative_norm=0.5, identical=False)
    lines = bakes.render([(bakes.Bake(method="rome", to_known_names=True, config={"clamp": 4.0}), [tried, tried])])
    assert lines[-1] == "| rome (clamp=4) | 2 | done | 9 of 10 | 0.025 | 0.50 | no |"
