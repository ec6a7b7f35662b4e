from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editors.errors import StatisticsNotFound
from editors.model.loading import load_base
from editors.surgery import covariance

TEXTS = [f"{word} of France is text number {n}." for n in range(10) for word in ("The capital", "A")]


@pytest.fixture(params=["gpt2", "opt", "llama"])
def base(model_folders, request):
    return load_base(model_folders[request.param], device="cpu")


@pytest.fixture
def llama(model_folders):
    return load_base(model_folders["llama"], device="cpu")


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(covariance, "_TEXTS_PER_BATCH", 3)
    monkeypatch.setattr(covariance, "_BATCHES_PER_CHECKPOINT", 1)


def site_of(base):
    return base.anatomy.within(1, base.anatomy.mlp_out)


def collect(base, folder, texts=TEXTS, **settings):
    return covariance.collect(base, site_of(base), texts, folder=folder, progress=False, **settings)


def read_one_by_one(base, texts):
    """Sum of k k^T in float64, and the number of keys, one text at a time."""
    module, rows = base.model.get_submodule(site_of(base)), []
    handle = module.register_forward_hook(
        lambda _m, inputs, _o: rows.append(inputs[0].reshape(-1, inputs[0].shape[-1]))
    )
    with torch.inference_mode():
        for text in texts:
            base.model(input_ids=torch.tensor([base.tokenizer(text)["input_ids"]]))
    handle.remove()
    keys = torch.cat(rows).double()
    return keys.T @ keys, len(keys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_second_moment_is_the_mean_over_every_token(base, tmp_path, dtype):
    ours = collect(base, tmp_path, dtype=dtype)
    total, keys = read_one_by_one(base, TEXTS)
    assert (ours.keys, ours.total.dtype) == (keys, dtype)
    torch.testing.assert_close(ours.second_moment, total / keys, atol=1e-6, rtol=1e-4)


def test_sums_are_in_single_precision_whatever_the_models(model_folders, tmp_path):
    half = load_base(model_folders["llama"], device="cpu", dtype="bfloat16")
    assert collect(half, tmp_path).total.dtype == torch.float32


def test_a_text_beyond_the_context_is_cut(llama, tmp_path):
    assert collect(llama, tmp_path, ["very " * 500]).keys == llama.context_length


def test_empty_texts_count_for_nothing(llama, tmp_path):
    with_empty = collect(llama, tmp_path, ["", *TEXTS, " "])
    assert torch.equal(with_empty.total, collect(llama, tmp_path, TEXTS).total)
    with pytest.raises(ValueError, match="0 texts"):
        collect(llama, tmp_path, [" "])


def test_what_was_collected_is_read_again_and_not_computed(llama, tmp_path, monkeypatch):
    first = collect(llama, tmp_path)
    monkeypatch.setattr(covariance, "_keys", lambda *_: pytest.fail("the model was run again"))
    again = collect(llama, tmp_path)
    assert torch.equal(again.total, first.total)
    assert (again.key, again.keys) == (first.key, first.keys)


@pytest.mark.parametrize(
    "change", [{"sample": 5}, {"sample": 5, "seed": 1}, {"dtype": torch.float64}, {"texts": TEXTS[:-1]}]
)
def test_whatever_the_result_depends_on_is_in_its_key(llama, tmp_path, change):
    collect(llama, tmp_path)
    collect(llama, tmp_path, sample=5, seed=2)
    collect(llama, tmp_path, **change)
    assert len(list(tmp_path.iterdir())) == 3


def test_every_field_of_the_key_names_another_file(llama, tmp_path):
    key = collect(llama, tmp_path).key
    others = [
        replace(key, **{field: 7 if isinstance(getattr(key, field), int) else "other"})
        for field in key.__dataclass_fields__
    ]
    assert len({other.file for other in (key, *others)}) == len(others) + 1


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("failing", [1, 2, 6])
def test_an_interrupted_run_goes_on_where_it_stopped_to_the_same_sum(base, tmp_path, failing, monkeypatch):
    whole = collect(base, tmp_path / "whole")
    run, batches = covariance._keys, []

    def interrupted(*arguments):
        batches.append(1)
        if len(batches) == failing:
            raise KeyboardInterrupt
        return run(*arguments)

    monkeypatch.setattr(covariance, "_keys", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(base, tmp_path / "parts")
    resumed = collect(base, tmp_path / "parts")
    assert len(batches) == 7 + 1  # seven batches of three, and the one that failed
    assert torch.equal(resumed.total, whole.total)
    assert resumed.keys == whole.keys
    assert [file.name for file in (tmp_path / "parts").iterdir()] == [whole.key.file]


@pytest.mark.usefixtures("small_batches")
def test_a_damaged_checkpoint_is_begun_again(llama, tmp_path):
    whole = collect(llama, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / f"{whole.key.file}.unfinished").write_bytes(b"half a file")
    assert torch.equal(collect(llama, tmp_path / "parts").total, whole.total)


def test_a_sample_is_drawn_from_its_seed(llama, tmp_path):
    one, same, other = (collect(llama, tmp_path / str(n), sample=5, seed=n // 2) for n in (0, 1, 2))
    assert torch.equal(one.total, same.total)
    assert not torch.equal(one.total, other.total)
    with pytest.raises(ValueError, match="21"):
        collect(llama, tmp_path, sample=21)


def test_of_several_the_one_of_most_keys_is_found(llama, tmp_path):
    collect(llama, tmp_path / "a", sample=5)
    most = collect(llama, tmp_path / "b")
    found = covariance.find(llama, site_of(llama), [tmp_path / "a", tmp_path / "b", tmp_path / "not there"])
    assert (found.key, found.keys) == (most.key, most.keys)


def test_another_models_or_sites_statistics_do_not_do(llama, model_folders, tmp_path):
    collect(llama, tmp_path)
    for base, site in (
        (load_base(model_folders["gpt2"], device="cpu"), site_of(llama)),
        (llama, llama.anatomy.within(0, llama.anatomy.mlp_out)),
    ):
        with pytest.raises(StatisticsNotFound, match=site.replace(".", r"\.")) as caught:
            covariance.find(base, site, [tmp_path])
        assert "errata stats" in caught.value.hint


def test_a_damaged_file_is_named(llama, tmp_path):
    path = tmp_path / collect(llama, tmp_path).key.file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StatisticsNotFound, match=path.name):
        covariance.find(llama, site_of(llama), [tmp_path])
