"""Dockerfile, docker-compose.yml and the proxy's configuration agree with the repository and with each other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.settings import is_loopback, load_settings
from tests.images import CADDYFILE, COMPOSE, ROOT, composed, image, stages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PASSWORD = {"POSTGRES_PASSWORD": "secret"}
FILE = composed(PASSWORD)
SERVICES = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_every_stage_is_built_on_one_before_or_on_python_and_there_is_one_for_each_kind_of_torch():
    arguments, found = stages()
    names = []
    for stage in found:
        base = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], stage.base)
        assert base in names or base == f"python:{arguments['PYTHON']}-slim-bookworm"
        names.append(stage.name)
    assert {"torch-cpu", "torch-cuda"} <= set(names)
    assert arguments["TORCH"] == "cpu"
    assert {stage.environment["TORCH_INDEX"] for stage in found if stage.name.startswith("torch-")} == {
        "https://download.pytorch.org/whl/cpu",
        "https://pypi.org/simple",
    }


def test_the_image_has_pythons_own_floor_and_the_projects_torch():
    arguments, found = stages()
    assert PROJECT["project"]["requires-python"] == f">={arguments['PYTHON']}"
    (torch,) = [name for name in PROJECT["project"]["dependencies"] if name.startswith("torch")]
    build = next(stage for stage in found if stage.name == "build")
    assert any(f"'{torch}'" in step for step in build.every("RUN"))
    (extras,) = [found[1] for step in build.every("RUN") if (found := re.search(r"'\.\[(.*)\]'", step))]
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])


def test_everything_that_is_copied_is_there_and_the_whole_package_is_copied():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[1] == "*"
    copied = set()
    for stage in stages()[1]:
        for step in stage.every("COPY"):
            if not step.startswith("--from="):
                *sources, _ = step.split()
                copied.update(sources)
    assert copied == sent
    assert all((ROOT / source).exists() for source in copied)
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert copied == {*packages, "pyproject.toml", PROJECT["project"]["readme"]}
    made = {stage.name for stage in stages()[1]}
    assert {step.split()[0].removeprefix("--from=") for step in image().every("COPY")} <= made


def test_the_image_runs_as_nobody_in_particular_and_can_be_reached_and_asked():
    user = image().last("USER")
    assert user not in {"root", "0"}
    assert any(re.search(rf"useradd .*\b{user}\b", step) for step in image().every("RUN"))
    environment = image().environment
    settings = load_settings({name: value for name, value in environment.items() if name.startswith("ERRATA_")})
    assert not is_loopback(settings.host)  # so it starts with a key only
    assert image().every("EXPOSE") == [str(settings.port)]
    assert "/readyz" in image().health[-1]
    made = " ".join(image().every("RUN"))
    assert f"--owner={user}" in made
    assert str(settings.data_dir.parent) in made


def test_the_entry_command_is_the_projects():
    (entry,) = json.loads(image().last("ENTRYPOINT"))
    assert entry in PROJECT["project"]["scripts"]
    assert CliRunner().invoke(app, [*json.loads(image().last("CMD")), "--help"]).exit_code == 0


def test_a_password_is_required():
    with pytest.raises(ValueError, match="POSTGRES_PASSWORD"):
        composed({})


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_commands_and_settings_that_exist(name):
    service = OURS[name]
    assert CliRunner().invoke(app, [*service["command"], "--help"]).exit_code == 0
    load_settings({**image().environment, **service["environment"]})
    assert service["image"] == "errata:cpu"
    assert service["build"]["args"] == {"TORCH": "cpu"}
    for volume in service["volumes"]:
        source, target = volume.split(":")
        assert source in FILE["volumes"]
        assert target in " ".join(image().every("RUN")), "a volume belongs to whom the folder in the image does"


def test_our_services_share_one_truth():
    assert {"migrate", "api-1", "api-2", "worker"} == set(OURS)
    assert len({str(service["environment"]) for service in OURS.values()}) == 1
    assert len({str(service["volumes"]) for service in OURS.values()}) == 1


def test_the_addresses_in_the_settings_are_those_of_services():
    database, redis = (OURS["api-1"]["environment"][f"ERRATA_{name}_URL"] for name in ("DATABASE", "REDIS"))
    made = SERVICES["postgres"]["environment"]
    assert database == f"postgresql://{made['POSTGRES_USER']}@postgres:5432/{made['POSTGRES_DB']}"
    assert OURS["api-1"]["environment"]["PGPASSWORD"] == made["POSTGRES_PASSWORD"] == PASSWORD["POSTGRES_PASSWORD"]
    assert redis == "redis://redis:6379/0"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_can_come(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        check = SERVICES[other].get("healthcheck", {})
        match how["condition"]:
            case "service_healthy":
                assert "test" in check or (other in OURS and not check), other
            case "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no", other
            case condition:
                raise AssertionError(condition)


def test_nothing_is_open_to_others_unless_that_is_asked_for():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["proxy"]
    assert all(port.startswith("127.0.0.1:") for port in published["proxy"])


def test_the_proxy_knows_the_replicas_and_their_port():
    port = image().environment["ERRATA_PORT"]
    apis = [f"{name}:{port}" for name in OURS if name.startswith("api-")]
    (upstreams,) = re.findall(r"^\s*reverse_proxy (.+) \{$", CADDYFILE.read_text(), re.MULTILINE)
    assert upstreams.split() == apis
    assert f"./{CADDYFILE.relative_to(ROOT)}:/etc/caddy/Caddyfile:ro" in SERVICES["proxy"]["volumes"]
    assert re.findall(r"\{\$(\w+)\}", CADDYFILE.read_text()) == list(SERVICES["proxy"]["environment"])
    (checked,) = re.findall(r"^http://(\S+) \{$", CADDYFILE.read_text(), re.MULTILINE)
    assert SERVICES["proxy"]["healthcheck"]["test"][-1] == f"http://{checked}/readyz"


def test_the_proxy_takes_its_configuration():
    caddy = Path(sys.executable).with_name("caddy")
    command = [caddy, "adapt", "--validate", "--adapter", "caddyfile", "--config", CADDYFILE]
    environment = {**os.environ, **SERVICES["proxy"]["environment"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"flush_interval":-1' in done.stdout


DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()


def test_the_documentation_names_every_service_variable_and_command():
    rows = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`.*?) \|", DEPLOYMENT, re.MULTILINE))))
    asked = {name for name, _ in re.findall(r"\$\{(\w+)(:[-?])", COMPOSE.read_text())}
    assert {*SERVICES, *asked} == rows
    for page in (DEPLOYMENT, (ROOT / "README.md").read_text()):
        command = re.search(r"docker compose run --rm (\S+) (.*)$", page, re.MULTILINE)
        assert command[1] in OURS
        assert CliRunner().invoke(app, [*command[2].split(), "--help"]).exit_code == 0


def test_the_gpu_is_for_those_who_have_a_model():
    overlay = composed({}, COMPOSE.with_name("docker-compose.cuda.yml"))
    assert set(overlay["services"]) == set(OURS) - {"migrate"}
