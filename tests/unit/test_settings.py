import re
from pathlib import Path

import pytest

from service.errors import StartupError
from service.settings import CLIENT_VARIABLES, Settings, is_loopback, load_settings

DOCS = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


def test_every_setting_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `(ERRATA_\w+)` \| (.*?) \| .+ \|$", DOCS, re.MULTILINE))
    expected = {
        f"ERRATA_{name.upper()}": "empty" if field.default in ("", None) else f"`{field.default}`"
        for name, field in Settings.model_fields.items()
    }
    assert rows == expected


def test_every_client_variable_is_documented():
    assert all(f"`{name}`" in DOCS for name in CLIENT_VARIABLES)


def test_settings_come_from_the_given_environment_alone(monkeypatch):
    monkeypatch.setenv("ERRATA_PORT", "1234")
    assert load_settings({}).port == 8000
    assert load_settings({"ERRATA_PORT": "4321"}).port == 4321
    assert load_settings().port == 1234


def test_an_empty_variable_counts_as_not_set():
    assert load_settings({"ERRATA_PORT": "", "ERRATA_SCOPE_THRESHOLD": ""}) == Settings()


def test_a_client_variable_does_not_disturb_the_service():
    assert load_settings({"ERRATA_URL": "http://127.0.0.1:9000"}) == Settings()


def test_a_misspelt_setting_stops_the_start_and_names_the_right_one():
    with pytest.raises(StartupError, match="ERRATA_PROT is not a setting") as caught:
        load_settings({"ERRATA_PROT": "9000"})
    assert caught.value.hint == "Did you mean ERRATA_PORT?"


def test_an_unknown_setting_unlike_any_other_points_to_the_list():
    with pytest.raises(StartupError) as caught:
        load_settings({"ERRATA_ZZZZZZZZ": "1"})
    assert "docs/settings.md" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ERRATA_PORT", "many"),
        ("ERRATA_PORT", "70000"),
        ("ERRATA_DTYPE", "int4"),
        ("ERRATA_SCOPE_THRESHOLD", "1.5"),
        ("ERRATA_SCOPE_CANDIDATES", "0"),
        ("ERRATA_CATCH_UP_SECONDS", "0"),
        ("ERRATA_LOG_LEVEL", "loud"),
        ("ERRATA_RATE_LIMIT", "ten"),
        ("ERRATA_RATE_LIMIT", "10"),
        ("ERRATA_RATE_LIMIT", "10/fortnight"),
        ("ERRATA_ANSWER_CACHE_BYTES", "-1"),
        ("ERRATA_ANSWER_CACHE_SECONDS", "0"),
        ("ERRATA_MAX_BODY_BYTES", "0"),
        ("ERRATA_DRAIN_SECONDS", "-1"),
        ("ERRATA_LOG_PROMPTS", "perhaps"),
    ],
)
def test_a_bad_value_stops_the_start_and_is_named(name, value):
    with pytest.raises(StartupError, match=f"{name} is '{value}'"):
        load_settings({name: value})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_addresses_can_be_reached_by_this_machine_alone(host):
    assert is_loopback(load_settings({"ERRATA_HOST": host}).host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_other_addresses_can_be_reached_by_others(host):
    assert not is_loopback(load_settings({"ERRATA_HOST": host}).host)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_variables_of_other_programs_are_left_alone():
    assert load_settings({"PROGRAM_PORT": "9", "MYTOOL_PORT": "9", "PORT": "9", "PGHOST": "db"}) == Settings()
