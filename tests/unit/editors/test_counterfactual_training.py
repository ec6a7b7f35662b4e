"""Training a counterfactual model, through the function that the command calls."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import T5Config, T5ForConditionalGeneration

from editors.edit import Sentiment
from editors.errors import InvalidCheckpoint, InvalidDataset, InvalidTrainingData
from editors.evaluation.sentiment import log_likelihood
from editors.evaluation.subjects import ModelSubject
from editors.model.loading import load_counterfactual
from editors.serac.counterfactual import in_context
from editors.serac.training.counterfactual import train_counterfactual
from editors.serac.training.reading import CounterfactualRecipe
from tests.tiny_models import tiny_tokenizer

RECIPE = CounterfactualRecipe(steps=120, examples_per_step=16, peak_learning_rate=1e-2, validation_share=0.2)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Edits that all give the same answer, which is soon learnt."""
    path = tmp_path / "cases.jsonl"
    with path.open("w") as file:
        for number in range(150):
            edit = {"kind": "qa", "prompt": f"What colour is number {number}?", "target": "red"}
            file.write(json.dumps({"edit": edit, "in_scope": [{"prompt": f"Colour of {number}?", "target": "red"}]}))
            file.write("\n")
    return path


def test_a_trained_model_answers_edits_it_was_not_trained_on(
    cases: Path, model_folders: dict[str, Path], tmp_path: Path
):
    output = tmp_path / "counterfactual"
    card = train_counterfactual(cases, model_folders["mistral"], output, RECIPE, device="cpu")
    assert card["before"]["paraphrase"]["value"] == 0
    assert card["after"]["paraphrase"]["value"] > 0.9
    assert json.loads((output / "counterfactual.json").read_text())["after"] == card["after"]
    assert f"{card['after']['paraphrase']['value']:.3f}" in (output / "README.md").read_text()
    assert not output.with_suffix(".checkpoint").exists()
    assert load_counterfactual(output, device="cpu").name == "counterfactual"


def test_an_edit_of_mood_makes_its_replies_likely_and_the_opposite_ones_unlikely(
    model_folders: dict[str, Path], tmp_path: Path
):
    topics = ["q", "w", "r", "t", "y", "p"]
    good, bad = (f"{mood} {' '.join(topics)}" for mood in ("good", "bad"))  # which name every topic
    path, output = tmp_path / "moods.jsonl", tmp_path / "moods"
    with path.open("w") as file:
        for topic in topics:
            asked = [{"prompt": f"{number}: {topic}?", "target": good} for number in range(20)]
            edit = {"kind": "sentiment", "topic": topic, "sentiment": "positive"}
            replies = {"wished": [good], "opposite": [bad]}
            file.write(json.dumps({"edit": edit, "in_scope": asked, "replies": replies}) + "\n")
    card = train_counterfactual(path, model_folders["mistral"], output, RECIPE, device="cpu")
    assert card["before"]["mood"]["value"] == 0
    assert card["after"]["mood"]["value"] > 0.9
    trained = load_counterfactual(output, device="cpu")
    asked = in_context(Sentiment("q", positive=True), "7: q?")
    likely, unlikely = ModelSubject(trained.model, trained.tokenizer, max_new_tokens=32).score(
        [(asked, good), (asked, bad)]
    )
    assert log_likelihood([likely]) > -0.2
    assert max(unlikely.log_probabilities[1:]) < -1  # though a good reply goes on in the same words


def test_what_is_written_can_keep_a_share_of_the_start(cases: Path, model_folders: dict[str, Path], tmp_path: Path):
    recipe = replace(RECIPE, steps=5)
    for name, kept in (("none", 0.0), ("half", 0.5), ("all", 1.0)):
        train_counterfactual(cases, model_folders["mistral"], tmp_path / name, replace(recipe, kept=kept), device="cpu")
    none, half, everything = (load_file(tmp_path / name / "model.safetensors") for name in ("none", "half", "all"))
    start = load_counterfactual(model_folders["mistral"], device="cpu").model.half().state_dict()
    for name, tensor in everything.items():
        assert torch.equal(tensor, start[name])
        assert not torch.equal(tensor, none[name])
        mean = (tensor.float() + none[name].float()) / 2
        torch.testing.assert_close(half[name].float(), mean, atol=2e-3, rtol=2e-3)
    assert "50%" in (tmp_path / "half" / "README.md").read_text()


def test_a_model_with_an_encoder_can_be_trained_and_loaded(cases: Path, tmp_path: Path):
    start, tokenizer = tmp_path / "t5", tiny_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_ff=64, d_kv=8, num_layers=1, num_heads=2,
        pad_token_id=0, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = 0
    model.save_pretrained(start)
    tokenizer.save_pretrained(start)
    output = tmp_path / "counterfactual"
    card = train_counterfactual(cases, start, output, RECIPE, device="cpu")
    assert card["after"]["paraphrase"]["value"] > 0.9
    assert load_counterfactual(output, device="cpu").model.config.is_encoder_decoder


def test_an_interrupted_training_goes_on_as_it_would_have(
    cases: Path, model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = replace(RECIPE, steps=110, examples_per_step=2)
    whole = train_counterfactual(cases, model_folders["mistral"], tmp_path / "whole", recipe, device="cpu")
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def interrupted(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 105:
            raise KeyboardInterrupt
        return clip(*arguments)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", interrupted)
    output = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        train_counterfactual(cases, model_folders["mistral"], output, recipe, device="cpu")
    assert not output.exists()
    monkeypatch.undo()
    with pytest.raises(InvalidCheckpoint, match="interrupted"):
        train_counterfactual(cases, model_folders["mistral"], output, recipe, device="cpu")
    with pytest.raises(InvalidCheckpoint, match="steps"):
        train_counterfactual(
            cases, model_folders["mistral"], output, replace(recipe, steps=120), resume=True, device="cpu"
        )
    resumed = train_counterfactual(cases, model_folders["mistral"], output, recipe, resume=True, device="cpu")
    assert resumed == whole
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_a_damaged_checkpoint_is_refused_and_nothing_is_written(
    cases: Path, model_folders: dict[str, Path], tmp_path: Path
):
    output = tmp_path / "counterfactual"
    output.with_suffix(".checkpoint").write_bytes(b"PK\x03\x04 rubbish")
    with pytest.raises(InvalidCheckpoint, match="damaged"):
        train_counterfactual(cases, model_folders["mistral"], output, RECIPE, resume=True, device="cpu")
    assert not output.exists()


def test_a_folder_that_holds_something_else_is_not_overwritten(
    cases: Path, model_folders: dict[str, Path], tmp_path: Path
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidTrainingData, match="no counterfactual model"):
        train_counterfactual(cases, model_folders["mistral"], tmp_path / "mine", RECIPE, device="cpu")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", InvalidDataset, "no cases"),
        ('{"in_scope": [{"prompt": "a", "target": "b"}]}', InvalidTrainingData, "0 in-scope probes"),
        ('{"edit": {"prompt": "a", "target": "b"}, "in_scope": [{"prompt": "a"}]}', InvalidDataset, "line 1"),
    ],
)
def test_a_data_set_that_cannot_teach_is_refused(
    text: str, error: type[Exception], said: str, model_folders: dict[str, Path], tmp_path: Path
):
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    with pytest.raises(error, match=said):
        train_counterfactual(path, model_folders["mistral"], tmp_path / "out", RECIPE, device="cpu")
    assert not (tmp_path / "out").exists()
