"""`errata bake` and `errata checkpoint` against a running server, over a real socket."""

import json
import tarfile

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import app
from tests.bakes import CONFIG, LENIENT, PROMPT, TARGET
from tests.integration.api.test_api_cli import served

SETTINGS = [part for name, value in CONFIG.items() for part in ("--config", f"{name}={value}")]
GATE = [part for name, value in LENIENT.items() for part in ("--gate", f"{name}={value}")]


@pytest.fixture
def url(database_url, baker, artifacts):
    with served(database_url, working=True, baker=baker, artifacts=artifacts) as url:
        yield url


@pytest.fixture
def errata(url):
    def errata(*arguments):
        return CliRunner().invoke(app, arguments, env={"ERRATA_URL": url})

    return errata


@pytest.fixture
def edit(url):
    body = {"prompt": PROMPT, "target": TARGET}
    return httpx.post(f"{url}/edits", json=body, trust_env=False).raise_for_status().json()["id"]


@pytest.fixture
def version(errata, edit):
    baked = errata("bake", "fine_tuning", *SETTINGS, *GATE, "--json")
    assert baked.exit_code == 0, baked.output
    return json.loads(baked.stdout)["version"]


def test_a_bake_is_followed_to_its_version(errata, edit):
    result = errata("bake", "fine_tuning", "--edits", edit, *SETTINGS, *GATE, "--seed", "3")
    assert result.exit_code == 0, result.output
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in result.stdout.splitlines()}
    assert rows["edit_success"] == ["1", "1", "true"]
    assert "b1 made v1" in result.stderr


def test_every_option_of_a_bake_arrives(errata, edit):
    plan = errata("bake", "fine_tuning", "--edits", edit, *SETTINGS, *GATE, "--seed", "3", "--dry-run", "--json")
    request = json.loads(plan.stdout)["request"]
    assert (request["edits"], request["gate"], request["seed"]) == ([edit], LENIENT, 3)
    assert CONFIG.items() <= request["config"].items()
    shown = errata("bake", "fine_tuning", "--dry-run").stdout
    assert edit in shown and "probes" in shown


def test_a_refused_bake_says_by_what_and_ends_with_1(errata, edit):
    result = errata("bake", "fine_tuning", *SETTINGS, "--gate", "relative_norm=0.001", "--gate", "max_new_tokens=12")
    assert result.exit_code == 1
    assert "relative_norm is" in result.stderr and "must be at most 0.001" in result.stderr


def test_an_unknown_method_is_the_services_own_error(errata, edit):
    result = errata("bake", "magic")
    assert (result.exit_code, "magic" in result.stderr) == (1, True)


def test_versions_are_listed_shown_served_and_rolled_back(errata, version, edit):
    def serves():
        return {line.split("\t")[0]: line.split("\t")[1] for line in errata("checkpoint", "list").stdout.splitlines()}

    assert serves() == {"v1": "0%", "v0": "100%"}
    canary = errata("checkpoint", "activate", "v1", "--percent", "20", "--reason", "to try")
    assert "v1, 20%" in canary.stdout
    assert serves() == {"v1": "20%", "v0": "80%"}
    assert json.loads(errata("checkpoint", "activate", "v1", "--json").stdout)["active"] == "v1"
    assert json.loads(errata("checkpoint", "rollback", "--json").stdout)["active"] == "v0"
    nothing = errata("checkpoint", "rollback")
    assert (nothing.exit_code, "served from the beginning" in nothing.stderr) == (1, True)
    shown = errata("checkpoint", "show", version).stdout
    assert all(words in shown for words in ("fine_tuning", edit, "edit_success", "drawdown"))
    assert errata("checkpoint", "show", "v9").exit_code == 1


def test_two_versions_answer_side_by_side(errata, version):
    asked = ("checkpoint", "diff", "v0", version, "--prompt", PROMPT, "--prompt", "How tall is a giraffe?", "--edits")
    rows = [line.split("\t") for line in errata(*asked).stdout.splitlines()]
    assert rows[0] == [PROMPT, TARGET, "UK? the of minister prime the is Who", "false"]
    assert rows[1][3] == "true"
    assert json.loads(errata(*asked, "--json").stdout)["differ"] == 1


def test_an_export_is_written_whole_or_not_at_all(errata, version, tmp_path):
    file = tmp_path / "v1.tar"
    assert errata("checkpoint", "export", version, str(file)).exit_code == 0
    with tarfile.open(file) as archive:
        assert "v1-peft/adapter_config.json" in archive.getnames()
    refused = errata("checkpoint", "export", "v0", str(tmp_path / "v0.tar"))
    assert (refused.exit_code, "is the base model" in refused.stderr) == (1, True)
    nowhere = errata("checkpoint", "export", version, str(tmp_path / "no" / "v1.tar"))
    assert (nowhere.exit_code, "cannot be written" in nowhere.stderr) == (1, True)
    assert [path.name for path in tmp_path.glob("*.tar*")] == ["v1.tar"]
