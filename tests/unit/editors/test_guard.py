from __future__ import annotations

import math

import pytest
import torch

from editors.delta import Delta, Dense
from editors.errors import DeltaMismatch, DisablingEdit, IneffectiveEdit, NonFiniteEdit
from editors.evaluation.subjects import ModelSubject
from editors.guard import GuardConfig, inspect, refuse
from editors.method import EditRequest
from editors.methods.fine_tuning.config import FineTuningConfig
from editors.methods.fine_tuning.editor import FineTuning
from editors.model.loading import load_base, tensor_hash
from tests.tiny_models import save_lively

FRANCE = EditRequest(prompt="The capital of France is", target="Lyon")
PROBES = ("Who is the prime minister of the UK?", "It rains in", "The sky is", "Paris was")
LENIENT = GuardConfig(largest_relative_norm=100.0, largest_ineffective=1.0, largest_drawdown=1.0, max_new_tokens=4)
SITE = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base(save_lively("llama", tmp_path_factory.mktemp("models") / "lively-llama"), device="cpu")


@pytest.fixture(scope="module")
def good(base):
    return FineTuning().prepare(base, [FRANCE], FineTuningConfig(layer=1, steps=6, learning_rate=5e-3))


def dense(base, value):
    weight = base.model.get_parameter(SITE)
    return Delta(base=base.fingerprint, changes={SITE: Dense(value(weight.detach().float()))})


def noise(size):
    return lambda weight: size * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))


def report_of(base, delta, *requests, probes=PROBES):
    return inspect(base, delta, requests or [FRANCE], probes, LENIENT)


def test_a_report_says_what_was_and_what_is(base, good):
    before = tensor_hash(base.model)
    report = report_of(base, good)
    assert tensor_hash(base.model) == before
    (effect,) = report.effects
    subject = ModelSubject(base.model, base.tokenizer, max_new_tokens=4)
    (scored,) = subject.score([(FRANCE.prompt, FRANCE.target)])
    assert effect.probability_before == pytest.approx(math.exp(sum(scored.log_probabilities)))
    assert effect.probability_after > effect.probability_before
    assert [effect.text_before] == subject.generate([FRANCE.prompt])
    change, weight = good.changes[SITE].product(), base.model.get_parameter(SITE)
    assert report.relative_norms == {SITE: pytest.approx(float(change.norm() / weight.norm()), rel=1e-5)}
    refuse(report, LENIENT)


def test_drawdown_is_the_share_of_probes_that_are_answered_otherwise(base):
    untouched, wrecked = (report_of(base, dense(base, noise(size))) for size in (0.0, 10.0))
    assert (untouched.drawdown.value, untouched.disturbances) == (0.0, ())
    assert wrecked.drawdown.hits == len(wrecked.disturbances) > 2
    assert all(changed.text_before != changed.text_after for changed in wrecked.disturbances)


def test_without_probes_there_is_no_drawdown(base, good):
    report = report_of(base, good, probes=())
    assert report.drawdown is None
    refuse(report, GuardConfig())


def test_an_edit_with_undefined_numbers_is_refused(base):
    with pytest.raises(NonFiniteEdit, match="infinite or undefined"):
        report_of(base, dense(base, lambda weight: torch.full_like(weight, torch.nan)))


def test_an_edit_that_makes_the_model_overflow_is_refused(base):
    with pytest.raises(NonFiniteEdit, match="computes"):
        report_of(base, dense(base, lambda weight: torch.full_like(weight, 1e38)))


def test_an_edit_without_effect_is_refused_by_name(base):
    report = report_of(base, dense(base, noise(0.0)))
    with pytest.raises(IneffectiveEdit, match=r"1 of 1 targets .* 'Lyon'"):
        refuse(report, GuardConfig())
    refuse(report, LENIENT)


def test_a_share_of_the_edits_may_fail_where_that_is_allowed(base, good):
    words = ("Lyon", "Paris", "green", "old", "it", "Who is it", "sky", "Kent")
    report = report_of(base, good, *(EditRequest(prompt=FRANCE.prompt, target=word) for word in words))
    failed = sum(not effect.is_effective for effect in report.effects)
    assert report.effects[0].is_effective
    assert failed > 0
    refuse(report, GuardConfig(largest_ineffective=failed / len(words), largest_drawdown=1.0))
    with pytest.raises(IneffectiveEdit, match=f"{failed} of 8"):
        refuse(report, GuardConfig(largest_ineffective=(failed - 0.5) / len(words), largest_drawdown=1.0))


def test_a_change_larger_than_its_weight_is_refused(base, good):
    norm = report_of(base, good).relative_norms[SITE]
    with pytest.raises(DisablingEdit, match="down_proj"):
        refuse(report_of(base, good), GuardConfig(largest_relative_norm=norm / 2, largest_drawdown=1.0))


def test_an_edit_that_changes_unrelated_answers_is_refused(base, good):
    wrecked = report_of(base, dense(base, noise(10.0)))
    with pytest.raises(DisablingEdit, match="unrelated answers"):
        refuse(wrecked, GuardConfig(largest_relative_norm=1e3, largest_ineffective=1.0))


def test_a_delta_of_another_base_is_refused(base):
    with pytest.raises(DeltaMismatch):
        report_of(base, Delta(base="another", changes={}))
    with pytest.raises(ValueError, match="requests"):
        inspect(base, Delta(base=base.fingerprint, changes={}), [], PROBES, LENIENT)


@pytest.mark.parametrize(
    "setting", [{"largest_relative_norm": 0.0}, {"largest_drawdown": 1.5}, {"largest_ineffective": -0.1}]
)
def test_thresholds_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        GuardConfig(**setting)
