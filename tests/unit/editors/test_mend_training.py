"""Training MEND's editor, through the function that the command calls."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from editors.errors import EditFailed, InvalidCheckpoint, InvalidDataset, InvalidTrainingData, TrainingDiverged
from editors.evaluation.datasets import read_cases
from editors.methods.mend.config import MendRecipe, NetworkConfig
from editors.methods.mend.files import load
from editors.methods.mend.groups import drawn_groups, split, whole_groups
from editors.methods.mend.training import train_mend
from editors.model.loading import load_base
from service.cli import app
from tests.tiny_models import save_lively

RECIPE = MendRecipe(
    network=NetworkConfig(blocks=2, rank=8),
    steps=100,
    edits_per_step=4,
    edits_at_once=3,
    c_edit=1.0,
    learning_rate=1e-2,
    validation_share=0.2,
    look_steps=10,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_lively("llama", tmp_path_factory.mktemp("models") / "lively-llama")


@pytest.fixture
def cases(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(record(number)) + "\n" for number in range(40)))
    return path


def record(number, **changes):
    prompt, target = f"The capital of {number} is", "Lyon"
    return {
        "edit": {"prompt": prompt, "target": target, "subject": str(number)},
        "in_scope": [{"prompt": prompt, "target": target, "form": "edit"}, {"prompt": f"{number}:", "target": target}],
        "out_of_scope": [{"prompt": "Who is old", "target": "Paris"}, {"prompt": f"Not {number + 100}, but"}],
        **changes,
    }


def train(cases, model, output, recipe=RECIPE, **options):
    return train_mend(cases, model, output, recipe, device="cpu", **options)


def test_training_makes_the_editor_edit(cases, model, tmp_path):
    output = tmp_path / "mend.safetensors"
    untrained = train(cases, model, tmp_path / "start.safetensors", replace(RECIPE, steps=1))
    card = train(cases, model, output)
    assert card["validation"]["1"]["es"]["value"] > untrained["validation"]["1"]["es"]["value"]
    assert list(card["validation"]) == ["1", "3"]
    scores = [own["es"]["value"] - own["dd"]["value"] for own in card["validation"].values()]
    assert load(output, load_base(model, device="cpu")).score == pytest.approx(sum(scores) / 2)
    assert json.loads(output.with_suffix(".json").read_text()) == json.loads(json.dumps(card))
    assert f"{card['validation']['3']['es']['value']:.3f}" in output.with_suffix(".md").read_text()
    assert not output.with_suffix(".checkpoint").exists()


def test_the_command_trains_and_tells_of_what_it_cannot_do(cases, model, tmp_path):
    output = tmp_path / "mend.safetensors"
    given = ["train", "mend", str(cases), "--base", str(model), "--output", str(output), "--device", "cpu"]
    trained = CliRunner().invoke(app, [*given, "--steps", "2", "--blocks", "2", "--edits-at-once", "2", "--json"])
    assert trained.exit_code == 0
    assert json.loads(trained.stdout) == json.loads(output.with_suffix(".json").read_text())
    output.with_suffix(".checkpoint").write_bytes(b"half way")
    refused = CliRunner().invoke(app, given)
    assert refused.exit_code == 1
    assert "interrupted training" in refused.stderr
    assert CliRunner().invoke(app, [*given, "--edits-at-once", "26"]).exit_code == 2


def test_an_interrupted_training_goes_on_as_it_would_have(cases, model, tmp_path, monkeypatch):
    recipe = replace(RECIPE, steps=103, edits_per_step=1, edits_at_once=1, look_steps=50)
    whole = train(cases, model, tmp_path / "whole.safetensors", recipe)
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 102:
            raise KeyboardInterrupt
        return clip(*arguments)

    output = tmp_path / "halves.safetensors"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.nn.utils, "clip_grad_norm_", interrupted)
        train(cases, model, output, recipe)
    assert not output.exists()
    with pytest.raises(InvalidCheckpoint, match="interrupted"):
        train(cases, model, output, recipe)
    with pytest.raises(InvalidCheckpoint, match="c_edit"):
        train(cases, model, output, replace(recipe, c_edit=0.2), resume=True)
    assert train(cases, model, output, recipe, resume=True) == whole
    assert output.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_training_stops_when_validation_gains_no_more(cases, model, tmp_path):
    idle = replace(RECIPE, steps=1000, look_steps=1, patience=2, edits_per_step=1, learning_rate=1e-12,
                   step_size_learning_rate=1e-12)  # fmt: skip
    assert train(cases, model, tmp_path / "mend.safetensors", idle)["kept_step"] == 1


def test_training_leaves_an_older_editor_alone_when_it_diverges(cases, model, tmp_path):
    output = tmp_path / "mend.safetensors"
    output.write_bytes(b"the old one")
    with pytest.raises(TrainingDiverged, match="0 steps"):
        train(cases, model, output, replace(RECIPE, network=NetworkConfig(blocks=2, step_size=1e38)))
    assert output.read_bytes() == b"the old one"


@pytest.mark.parametrize(
    "shortage",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
        MemoryError(),
    ],
)
def test_training_says_what_to_do_when_memory_runs_out(cases, model, tmp_path, monkeypatch, shortage):
    def short(*_, **__):
        raise shortage

    with monkeypatch.context() as patch, pytest.raises(EditFailed, match="lively-llama") as caught:
        patch.setattr(torch.autograd, "backward", short)
        train(cases, model, tmp_path / "mend.safetensors")
    assert "fewer edits" in caught.value.hint
    assert not (tmp_path / "mend.safetensors").exists()


def test_another_failure_is_not_taken_for_a_lack_of_memory(cases, model, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("expected scalar type Float but found Half")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="scalar type"):
        patch.setattr(torch.autograd, "backward", broken)
        train(cases, model, tmp_path / "mend.safetensors")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", InvalidDataset, "no cases"),
        (json.dumps(record(1)), InvalidTrainingData, "to train on"),
        ("\n".join(json.dumps(record(n, out_of_scope=[])) for n in range(40)), InvalidTrainingData, "0 cases"),
        (
            "\n".join(json.dumps(record(n, edit={"kind": "statement", "statement": "It is."})) for n in range(40)),
            InvalidTrainingData,
            "0 cases",
        ),
    ],
)
def test_a_data_set_that_cannot_teach_is_refused(text, error, said, model, tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    with pytest.raises(error, match=said):
        train(path, model, tmp_path / "mend.safetensors")
    assert not (tmp_path / "mend.safetensors").exists()


def test_groups_are_of_every_size_and_about_different_things(cases):
    read = read_cases(cases, "jsonl")
    groups = [group for step in range(40) for group in drawn_groups(read, RECIPE, step)]
    assert {len(group.requests) for group in groups} == {1, 2, 3}
    assert all(len({r.subject for r in group.requests}) == len(group.requests) for group in groups)
    assert drawn_groups(read, RECIPE, 7) == drawn_groups(read, RECIPE, 7) != drawn_groups(read, RECIPE, 8)


def test_what_one_edit_of_a_group_changes_no_other_is_asked_to_keep(tmp_path):
    path = tmp_path / "cases.jsonl"
    staying = [{"prompt": "Who is Bob?"}, {"prompt": "Who is Ann?"}, {"prompt": "Who is Cid?"}]
    edits = [{"prompt": f"{name} is", "target": "old", "subject": name} for name in ("Ann", "Bob")]
    probes = [{"prompt": "So old is", "target": "old"}]
    path.write_text("\n".join(json.dumps(record(0, edit=e, in_scope=probes, out_of_scope=staying)) for e in edits))
    (group,) = whole_groups(read_cases(path, "jsonl"), 2)
    assert group.out_of_scope == (("Who is Ann?", None), ("Who is Cid?", None), ("Who is Bob?", None),
                                  ("Who is Cid?", None))  # fmt: skip


def test_a_subject_is_on_one_side_alone(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(json.dumps(record(number % 20, id=str(number))) for number in range(60)))
    train_side, validation = split(read_cases(path, "jsonl"), 0.3)
    assert train_side
    assert validation
    assert not {case.subject for case in train_side} & {case.subject for case in validation}
