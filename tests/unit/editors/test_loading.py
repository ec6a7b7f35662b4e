from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, T5Config

from editors.errors import DeviceUnavailable, ModelNotFound
from editors.model.loading import load_base, tensor_hash


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_a_loaded_base_is_frozen(model_folders, model_type):
    base = load_base(model_folders[model_type])
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_base_knows_its_name_and_limits(model_folders):
    base = load_base(str(model_folders["llama"]), device="cpu")
    assert (base.name, base.device.type, base.dtype, base.context_length) == ("tiny-llama", "cpu", torch.float32, 256)


def test_a_folder_may_be_given_relative_to_the_working_directory(model_folders, monkeypatch):
    monkeypatch.chdir(model_folders["llama"])
    assert load_base(".").name == "tiny-llama"
    monkeypatch.chdir(model_folders["llama"].parent)
    assert load_base("tiny-llama").name == "tiny-llama"


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_prompts_padded_together_continue_as_they_do_alone(model_folders, model_type):
    base = load_base(model_folders[model_type], device="cpu")
    prompts = ["Who is", "The capital of France is"]

    def continuations(batch: list[str]) -> list[list[int]]:
        encoded = base.tokenizer(batch, padding=True, return_tensors="pt", return_token_type_ids=False)
        tokens = base.model.generate(**encoded, max_new_tokens=5, min_new_tokens=5, do_sample=False)
        return tokens[:, encoded["input_ids"].shape[1] :].tolist()

    together = continuations(prompts)
    assert together == [continuations([prompt])[0] for prompt in prompts]
    assert all(len(tokens) == 5 for tokens in together)


def test_a_lower_precision_is_honoured(model_folders):
    assert load_base(model_folders["llama"], dtype="bfloat16").dtype == torch.bfloat16


def test_on_cpu_a_half_precision_checkpoint_is_read_as_float32(model_folders, tmp_path):
    half = _copy(model_folders["llama"], tmp_path)
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16).save_pretrained(half)
    assert load_base(half, device="cpu").dtype == torch.float32


def test_an_unknown_precision_is_refused(model_folders):
    with pytest.raises(ValueError, match="int3"):
        load_base(model_folders["llama"], dtype="int3")


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there_is_refused(model_folders, device):
    with pytest.raises(DeviceUnavailable, match=device):
        load_base(model_folders["llama"], device=device)


@pytest.mark.parametrize("path", ["/no/such/model", "./no-such-model", "~/no/such/model", "models/deep/er"])
def test_a_path_to_nothing_is_refused_without_asking_the_hub(path, monkeypatch):
    def ask(*_: object, **__: object) -> None:
        pytest.fail("the hub was asked")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", ask)
    with pytest.raises(ModelNotFound, match=path) as caught:
        load_base(path)
    assert "config.json" in caught.value.hint


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        load_base(tmp_path)


def test_a_model_that_the_hub_does_not_give_is_refused_with_the_cause(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound, match="no-one/nothing") as caught:
        load_base("no-one/nothing")
    assert isinstance(caught.value.__cause__, OSError)
    assert "HF_TOKEN" in caught.value.hint


def _other_kind(folder: Path) -> None:
    T5Config().save_pretrained(folder)


def _unheard_of(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "zork"}')


def _config_cut_short(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla')


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _weights_cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _no_head(folder: Path) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(folder)


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _tokenizer_of_nonsense(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Zork"}}')


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (_other_kind, "T5Config"),
        (_unheard_of, "zork"),
        (_config_cut_short, "config"),
        (_no_weights, r"model\.safetensors"),
        (_weights_cut_short, "cannot be loaded"),
        (_no_head, r"lm_head\.weight"),
        (_no_tokenizer, "tokenizer"),
        (_tokenizer_of_nonsense, "tokenizer"),
    ],
)
def test_a_folder_that_holds_no_usable_model_is_refused(
    model_folders, tmp_path, damage: Callable[[Path], None], cause: str
):
    folder = _copy(model_folders["llama"], tmp_path)
    damage(folder)
    with pytest.raises(ModelNotFound, match=cause) as caught:
        load_base(folder)
    assert caught.value.detail.count("\n") == 0
    assert caught.value.hint in str(caught.value)


def test_a_fingerprint_names_what_the_model_computes_and_not_where_it_lies(model_folders, tmp_path):
    base = load_base(model_folders["llama"], device="cpu")
    assert load_base(_copy(model_folders["llama"], tmp_path), device="cpu").fingerprint == base.fingerprint
    assert load_base(model_folders["gpt2"], device="cpu").fingerprint != base.fingerprint


def test_a_half_precision_checkpoint_has_one_fingerprint_however_it_is_held(model_folders, tmp_path):
    half = _copy(model_folders["llama"], tmp_path)
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16).save_pretrained(half)
    as_it_is, widened = load_base(half, dtype="bfloat16"), load_base(half, dtype="float32")
    assert as_it_is.fingerprint == widened.fingerprint
    assert tensor_hash(as_it_is.model) != tensor_hash(widened.model)
    assert load_base(model_folders["llama"]).fingerprint != widened.fingerprint


def test_a_fingerprint_changes_with_the_config_alone(model_folders, tmp_path):
    folder = _copy(model_folders["llama"], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    before, after = load_base(model_folders["llama"]), load_base(folder)
    assert tensor_hash(after.model) == tensor_hash(before.model)
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.down_proj.weight", "model.rotary_emb.inv_freq"])
def test_the_hash_sees_one_changed_number(model_folders, name):
    model = load_base(model_folders["llama"], device="cpu").model
    before = tensor_hash(model)
    tensor = dict([*model.named_parameters(), *model.named_buffers()])[name]
    old = tensor.data.view(-1)[-1].clone()
    tensor.data.view(-1)[-1] += 1
    assert tensor_hash(model) != before
    tensor.data.view(-1)[-1] = old
    assert tensor_hash(model) == before


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))
