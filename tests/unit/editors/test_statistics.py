"""`errata stats`, and the settings recommended for a base."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import demo
from editors.errors import StatisticsNotFound
from editors.methods.rome.config import RomeConfig
from editors.methods.rome.editor import Rome
from editors.model.loading import load_base
from editors.recommended import config_for
from editors.surgery import covariance
from service.cli import app
from tests.tiny_models import save_lively, tiny_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_lively("llama", tmp_path_factory.mktemp("models") / "lively-llama")


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join(tiny_corpus()), encoding="utf-8")
    return file


def stats(*arguments):
    return CliRunner().invoke(app, ["stats", *map(str, arguments)])


def recommend(folder, base, **settings):
    document = {"model": base.fingerprint, "settings": {"rome": settings}}
    (folder / "own.settings.json").write_text(json.dumps(document), encoding="utf-8")


def test_statistics_are_where_rome_looks_for_them(folder, corpus, tmp_path):
    done = stats(corpus, "--base", folder, "--layer", 0, "--layer", 1, "--output", tmp_path / "assets", "--json")
    assert done.exit_code == 0, done.output
    told, base = json.loads(done.stdout), load_base(folder, device="cpu")
    for layer, site in enumerate(told["sites"]):
        found = covariance.find(base, f"model.layers.{layer}.mlp.down_proj", [tmp_path / "assets"])
        assert (site["site"], site["keys"], site["width"]) == (found.key.site, found.keys, 48)


def test_without_a_layer_it_is_the_one_that_is_recommended(folder, corpus, tmp_path):
    recommend(tmp_path, load_base(folder, device="cpu"), layer=1)
    done = stats(corpus, "--base", folder, "--output", tmp_path, "--json")
    assert [site["site"] for site in json.loads(done.stdout)["sites"]] == ["model.layers.1.mlp.down_proj"]


def test_fewer_keys_than_the_matrix_is_wide_are_remarked_on(folder, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("A few words.", encoding="utf-8")
    done = stats(corpus, "--base", folder, "--output", tmp_path)
    assert done.exit_code == 0 and "fewer keys" in done.output


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--layer", 7], "layers 0 to 1"), (["--sample", 10**6], "cannot be drawn"), (["--device", "tpu"], "tpu")],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(folder, corpus, tmp_path, more, says):
    done = stats(corpus, "--base", folder, "--output", tmp_path / "assets", *more)
    assert done.exit_code in {1, 2} and says in done.output
    assert not list(tmp_path.glob("assets/*"))


def test_a_model_of_ones_own_wants_a_corpus(folder):
    done = stats("--base", folder)
    assert done.exit_code == 2 and "corpus" in done.output


def test_what_is_given_comes_before_what_is_recommended_and_that_before_the_default(folder, tmp_path):
    base = load_base(folder, device="cpu")
    recommend(tmp_path, base, layer=1, prefixes=[[3, 2]])
    config = config_for(base, Rome(), [tmp_path], layer=0)
    assert config == RomeConfig(layer=0, prefixes=((3, 2),))
    other = load_base(demo.BUNDLE, device="cpu")
    assert config_for(other, Rome(), [tmp_path]) == RomeConfig()


def test_the_bundle_has_statistics_for_the_layer_that_is_recommended():
    base = load_base(demo.BUNDLE, device="cpu")
    config = config_for(base, Rome(), [demo.STATISTICS])
    layer = config.layer_of(base.model.config)
    found = covariance.find(base, base.anatomy.within(layer, base.anatomy.mlp_out), [demo.STATISTICS])
    assert found.keys > 100 * len(found.total)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": "x"}', '{"model": "x", "settings": {"rome": 1}}'])
def test_a_damaged_file_of_settings_is_named(folder, tmp_path, content):
    (tmp_path / "own.settings.json").write_text(content, encoding="utf-8")
    with pytest.raises(StatisticsNotFound, match=r"own\.settings\.json"):
        config_for(load_base(folder, device="cpu"), Rome(), [tmp_path])


def test_a_setting_that_the_method_lacks_is_refused(folder, tmp_path):
    base = load_base(folder, device="cpu")
    with pytest.raises(ValueError, match="colour"):
        config_for(base, Rome(), [tmp_path], colour="red")
