import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import errors
from service.errors import ErrataError, RequestError, StartupError

DOCS = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


def below(parent: type[ErrataError]) -> Iterator[type[ErrataError]]:
    for child in parent.__subclasses__():
        yield child
        yield from below(child)


EVERY = [kind for kind in below(ErrataError) if kind.__module__ == errors.__name__]
SENT = [kind for kind in EVERY if kind is not RequestError and kind is not StartupError]
WITHOUT_CHILDREN = [kind for kind in SENT if not kind.__subclasses__()]


def test_the_documentation_lists_every_error_with_its_slug_and_status():
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+|exit \d+) \| `(\w+)` \| \S.* \|$", DOCS, re.MULTILINE)
    expected = {(kind.slug, str(kind.status), kind.__name__) for kind in SENT}
    assert set(rows) == expected | {(StartupError.slug, f"exit {StartupError.exit_code}", "StartupError")}
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_the_drawing_shows_every_error_under_its_status(kind):
    (line,) = (line for line in str(errors.__doc__).splitlines() if re.search(rf"\b{kind.__name__}\b", line))
    if shown := re.search(r"\b\d{3}\b", line):
        assert int(shown[0]) == kind.status


def test_the_drawing_shows_nothing_else():
    drawing = str(errors.__doc__).split("\n\n")[1]
    drawn = set(re.findall(r"\b(?:[A-Z][a-z]+)+\b", drawing))
    assert drawn == {kind.__name__ for kind in EVERY} | {"ErrataError"}


@pytest.mark.parametrize("kind", WITHOUT_CHILDREN, ids=lambda kind: kind.__name__)
def test_every_error_says_what_to_do(kind):
    assert kind("It happened.").hint


def test_no_two_errors_share_a_slug():
    slugs = [kind.slug for kind in [*SENT, StartupError]]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("kind", SENT, ids=lambda kind: kind.__name__)
def test_a_retry_may_help_only_when_the_service_is_unavailable_or_the_caller_too_quick(kind):
    assert kind.retryable == (kind.status in {429, 503})
