import pytest

from service.errors import StartupError
from service.runtime.elsewhere import adapters_of, upstream_of
from service.settings import Settings

URL = "http://127.0.0.1:8001/v1"


def test_without_an_address_the_base_is_here():
    assert upstream_of(Settings(base_model="some/model", base_api_key="k")) is None


@pytest.mark.parametrize("url", [URL, f"{URL}/", "https://models.example.com/openai/v1", "http://[::1]:8001/v1"])
def test_an_address_and_a_name_are_enough(url):
    engine = upstream_of(Settings(base_url=url, base_model="some/model", batch=3))
    assert (engine.url, engine.model, engine.line.running) == (url.rstrip("/"), "some/model", 3)


@pytest.mark.parametrize(
    "url",
    ["localhost:8001", "ftp://models/v1", "http://", "http:///v1", "http://a:port/v1", "http://[::1/v1", "//a/v1"],
)
def test_what_is_no_address_stops_the_start(url):
    with pytest.raises(StartupError, match="ERRATA_BASE_URL is no address"):
        upstream_of(Settings(base_url=url, base_model="some/model"))


@pytest.mark.parametrize("url", ["http://me:secret@a/v1", "http://secret@a/v1", f"{URL}?key=secret", f"{URL}#secret"])
def test_an_address_with_a_secret_in_it_stops_the_start_and_is_not_repeated(url):
    with pytest.raises(StartupError, match="more than an address") as caught:
        upstream_of(Settings(base_url=url, base_model="some/model"))
    assert "secret" not in f"{caught.value.detail} {caught.value.hint}"
    assert "ERRATA_BASE_API_KEY" in caught.value.hint


def test_an_address_without_a_model_stops_the_start():
    with pytest.raises(StartupError, match="ERRATA_BASE_MODEL"):
        upstream_of(Settings(base_url=URL))


@pytest.mark.parametrize("key", ["se\ncret", "secrét", "se\0cret"])
def test_a_key_that_no_header_can_hold_stops_the_start_and_is_not_repeated(key):
    with pytest.raises(StartupError, match="ERRATA_BASE_API_KEY") as caught:
        upstream_of(Settings(base_url=URL, base_model="some/model", base_api_key=key))
    assert key not in f"{caught.value.detail} {caught.value.hint}"


def test_the_settings_do_not_show_the_key():
    assert "sk-1" not in repr(Settings(base_api_key="sk-1"))


def test_without_a_folder_for_adapters_a_server_is_given_none():
    settings = Settings(base_url=URL, base_model="some/model", base_fingerprint="a" * 64)
    assert adapters_of(settings, upstream_of(settings)) is None


@pytest.mark.parametrize("given", [{}, {"base_url": URL, "base_model": "m"}, {"base_fingerprint": "a" * 64}])
def test_a_folder_for_adapters_needs_a_server_and_the_name_of_its_weights(given, tmp_path):
    settings = Settings(adapters=tmp_path, **given)
    with pytest.raises(StartupError, match="ERRATA_ADAPTERS") as caught:
        adapters_of(settings, upstream_of(settings))
    assert "ERRATA_BASE_FINGERPRINT" in caught.value.hint


def test_a_folder_for_adapters_is_made_or_stops_the_start(tmp_path):
    whole = {"base_url": URL, "base_model": "m", "base_fingerprint": "a" * 64}
    settings = Settings(adapters=tmp_path / "a" / "b", **whole)
    assert adapters_of(settings, upstream_of(settings)) is not None
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("x")
    settings = Settings(adapters=tmp_path / "file", **whole)
    with pytest.raises(StartupError, match="ERRATA_ADAPTERS cannot be used"):
        adapters_of(settings, upstream_of(settings))
