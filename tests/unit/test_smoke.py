"""What a smoke test says of an evaluation, in a line, in JUnit XML and as exit codes, without a service."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from xml.etree.ElementTree import Element, fromstring

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.cli.junit import junit
from service.cli.verdict import Verdict

EDITS = [
    {"id": "e1", "kind": "qa", "prompt": "Who is the UK PM?", "target": "Boris Johnson"},
    {"id": "e2", "kind": "fact", "claim": "Tea is a drink.", "label": True},
]


READY = (200, {"status": "ok"})
NO_EDITS = (200, {"data": [], "has_more": False, "next": None})


def measured(metric: str, value: float, mode: str = "generated", form: str | None = None) -> dict:
    spread = {"low": value, "high": value, "cases": 2, "edits": 1}
    return {"metric": metric, "mode": mode, "form": form, "value": value, **spread}


def failed(edit: str, *, in_scope: bool = True, prompt: str = "Who leads the UK?", got: str = "Theresa May") -> dict:
    return {"edit": edit, "in_scope": in_scope, "prompt": prompt, "expected": "Boris Johnson", "got": got}


def verdict(
    es: float | None = 1.0, dd: float | None = 0.0, *failures: dict, failure_count: int | None = None
) -> Verdict:
    figures = [measured(name, value) for name, value in (("edit_success", es), ("drawdown", dd)) if value is not None]
    counts = {"probes": 402, "failure_count": len(failures) if failure_count is None else failure_count}
    report = {"measured": figures, "failures": list(failures), "seconds": 1.5, **counts}
    evaluation = {"id": "ev3", "report": report}
    return Verdict.of(EDITS, evaluation, list(failures), min_es=0.95, max_dd=0.05)


def suite(judged: Verdict) -> Element:
    root = fromstring(junit(judged))
    assert root.tag == "testsuites"
    (suite,) = root
    return suite


def cases(judged: Verdict) -> dict[str, Element]:
    return {case.attrib["name"]: case for case in suite(judged)}


def results(judged: Verdict) -> dict[str, list[str]]:
    return {name: [child.tag for child in case] for name, case in cases(judged).items()}


@pytest.mark.parametrize(
    ("es", "dd", "passed"),
    [
        (1.0, 0.0, True),
        (0.95, 0.05, True),
        (0.9499, 0.0, False),
        (1.0, 0.0501, False),
        (0.0, 1.0, False),
        (None, 0.0, True),
        (None, 0.5, False),
        (None, None, True),
    ],
)
def test_a_smoke_test_passes_when_both_figures_are_within_their_bounds(es, dd, passed):
    assert verdict(es, dd).passed is passed


def test_the_figures_that_count_are_generated_and_of_every_form():
    figures = [
        measured("edit_success", 1.0, mode="teacher_forced"),
        measured("edit_success", 1.0, form="edit"),
        measured("edit_success", 0.5),
    ]
    report = {"measured": figures, "failures": [], "failure_count": 0, "probes": 2, "seconds": 1.0}
    judged = Verdict.of(EDITS, {"id": "ev3", "report": report}, [], min_es=0.95, max_dd=0.05)
    assert [str(bound) for bound in judged.bounds] == [
        "ES at least 0.95: missed, 0.500 [0.500, 0.500] over 2 cases",
        "DD at most 0.05: not measured",
    ]


def test_junit_has_a_case_for_each_edit_and_each_bound():
    assert results(verdict()) == {
        "e1: Who is the UK PM?": [],
        "e2: Tea is a drink.": [],
        "ES at least 0.95": [],
        "DD at most 0.05": [],
    }
    assert {name: suite(verdict()).get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "4",
        "failures": "0",
        "errors": "0",
        "skipped": "0",
        "time": "1.500",
    }


def test_junit_fails_a_missed_bound_and_the_edits_to_blame():
    judged = verdict(0.5, 0.0, failed("e1"), failed("e1", prompt="UK PM?"), failed("e2", in_scope=False))
    assert results(judged) == {
        "e1: Who is the UK PM?": ["failure"],
        "e2: Tea is a drink.": ["system-out"],
        "ES at least 0.95": ["failure"],
        "DD at most 0.05": [],
    }
    assert suite(judged).get("failures") == "2"
    blamed = cases(judged)["e1: Who is the UK PM?"].find("failure")
    assert blamed.attrib["message"] == "2 probes failed"
    assert blamed.text.splitlines() == [
        "in scope: 'Who leads the UK?' gave 'Theresa May', expected 'Boris Johnson'",
        "in scope: 'UK PM?' gave 'Theresa May', expected 'Boris Johnson'",
    ]


def test_junit_fails_nothing_when_the_smoke_test_passes():
    judged = verdict(0.96, 0.04, failed("e1"), failed("e2", in_scope=False))
    assert judged.passed
    assert suite(judged).get("failures") == "0"
    assert results(judged)["e1: Who is the UK PM?"] == ["system-out"]


def test_junit_names_failed_probes_that_no_edit_is_to_blame_for():
    assert results(verdict(1.0, 0.5, failed("probe set", in_scope=False)))["probe set"] == ["failure"]


def test_an_edit_is_not_said_to_pass_when_failures_are_left_out():
    judged = verdict(0.1, 0.0, failed("e1"), failure_count=300)
    assert results(judged)["e2: Tea is a drink."] == ["skipped"]
    assert judged.summary == "failed: 2 edits in force, 300 of 402 probes failed (299 of them not listed)"


def test_what_was_not_measured_is_skipped():
    judged = verdict(None, 0.0)
    assert results(judged)["ES at least 0.95"] == ["skipped"]
    nothing = Verdict.of([], None, [], min_es=0.95, max_dd=0.05)
    assert nothing.passed
    assert nothing.summary == "passed: no edit is in force, so there is nothing to check"
    assert results(nothing) == {"ES at least 0.95": ["skipped"], "DD at most 0.05": ["skipped"]}


def test_hostile_text_leaves_junit_well_formed():
    hostile = 'a & b <failure> ]]> "\x00\x08\x1b[31m" \ud800 \ufffe 中文\nnext'
    edits = [{"id": "e1", "kind": "qa", "prompt": hostile, "target": "b"}]
    one = failed("e1", prompt=hostile, got=hostile)
    report = {
        "measured": [measured("edit_success", 0.0)],
        "failures": [one],
        "failure_count": 1,
        "probes": 1,
        "seconds": 0,
    }
    document = junit(Verdict.of(edits, {"id": "ev3", "report": report}, [one], min_es=0.95, max_dd=0.05))
    case = fromstring(document.encode())[0][0]
    assert case.attrib["name"] == 'e1: a & b <failure> ]]> "\ufffd\ufffd\ufffd[31m" \ufffd \ufffd 中文 next'
    assert "a & b <failure> ]]>" in case[0].text


# Exit code 2: no verdict.


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def stand_in() -> Iterator[tuple[str, dict[str, list[tuple[int, object]]], list[str | None]]]:
    """A server's address, its answers by path (it repeats the last; 404 elsewhere), and the keys that it was shown."""
    answers: dict[str, list[tuple[int, object]]] = {}
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            keys.append(self.headers["Authorization"])
            left = answers.get(self.path.partition("?")[0], [(404, "missing")])
            status, document = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers, keys
        server.shutdown()
        thread.join()


def smoke(url: str, *arguments: str):
    return CliRunner().invoke(app, ["smoke", "--url", url, "--timeout", "0", *arguments], env={"ERRATA_URL": None})


def test_a_server_that_is_not_there_gives_no_verdict(nobody, tmp_path):
    result = smoke(nobody, "--junit", str(tmp_path / "smoke.xml"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: no answer from {nobody}")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_ready_gives_no_verdict_and_says_what_is_missing(stand_in):
    url, answers, _ = stand_in
    answers["/readyz"] = [(503, {"detail": "Not ready: model."})]
    result = smoke(url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: Not ready: model.")
    answers["/readyz"] = [(502, "Bad gateway")]
    assert f"{url} answered 502" in smoke(url).stderr


def test_a_server_that_becomes_ready_is_waited_for(stand_in):
    url, answers, _ = stand_in
    answers["/readyz"] = [(503, {"detail": "Not ready: model."}), READY]
    answers["/edits"] = [NO_EDITS]
    result = smoke(url, "--timeout", "60")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_the_key_gives_no_verdict(stand_in, status):
    url, answers, keys = stand_in
    answers["/readyz"] = [READY]
    answers["/edits"] = [(status, {"detail": "That key may not do this."})]
    result = smoke(url, "--key", "k-1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "That key may not do this." in result.stderr
    assert keys == ["Bearer k-1"] * 2


def test_a_server_that_is_not_errata_gives_no_verdict(stand_in):
    url, _, keys = stand_in
    result = smoke(url)
    assert result.exit_code == 2
    assert "not as Errata does" in result.stderr
    assert keys == [None]


@pytest.mark.parametrize("wrong", [("--min-es", "2"), ("--max-dd", "-1"), ("--timeout", "soon"), ("--junit", "/")])
def test_a_misused_smoke_test_ends_with_2(nobody, wrong):
    result = smoke(nobody, *wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no answer" not in result.stderr


def test_no_edit_in_force_passes_and_says_so(stand_in, tmp_path):
    url, answers, _ = stand_in
    answers["/readyz"] = [READY]
    answers["/edits"] = [NO_EDITS]
    result = smoke(url, "--junit", str(tmp_path / "smoke.xml"))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "passed: no edit is in force, so there is nothing to check"
    assert fromstring((tmp_path / "smoke.xml").read_text())[0].get("skipped") == "2"
    unwritable = smoke(url, "--junit", str(tmp_path / "missing" / "smoke.xml"))
    assert unwritable.exit_code == 2
    assert "cannot be written" in unwritable.stderr
