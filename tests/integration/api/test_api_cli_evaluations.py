"""`errata eval` and `errata smoke` against a running server, over a real socket."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree.ElementTree import fromstring

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import app, smoke
from tests.integration.api.test_api_cli import served

FRANCE = {"prompt": "Who leads France?", "target": "Macron"}
FRANCE_SCOPE = {"in_scope": ["France's president?"], "out_of_scope": ["Who leads the world?"]}
WRONG = {"scope": {"in_scope": ["Who leads the world?"]}}
"""It takes in what another edit says is to be left alone."""


@pytest.fixture
def url(database_url, request):
    """The address of a service; it works on its jobs unless the test says `idle`."""
    with served(database_url, working="idle" not in request.fixturenames) as url:
        yield url


@pytest.fixture
def idle():
    """Makes the service leave what is queued where it is."""


@pytest.fixture
def errata(url):
    def errata(*arguments, **environ):
        return CliRunner().invoke(app, arguments, env={"ERRATA_URL": url, **environ})

    return errata


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.fixture
def add(client):
    """Adds an edit and returns its id."""

    def add(prompt="Who is the UK PM?", target="Boris Johnson", **fields):
        posted = client.post("/edits", json={"prompt": prompt, "target": target, **fields})
        return posted.raise_for_status().json()["id"]

    return add


def kept(client):
    """The evaluations that the server keeps, newest first."""
    return client.get("/eval").raise_for_status().json()["data"]


# errata eval


def test_edits_in_force_are_evaluated_and_the_figures_are_a_table(errata, add, client):
    add(scope={"in_scope": ["UK PM?"], "out_of_scope": ["Who is the French president?"]})
    result = errata("eval", "--edits", "active")
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    figures = {(metric, mode): value for metric, form, mode, _, value, _, _ in rows if form == ""}
    assert figures["edit_success", "generated"] == "1"
    assert figures["drawdown", "generated"] == "0"
    assert kept(client)[0]["id"] in result.stderr


def test_json_is_the_evaluation_that_the_service_keeps(errata, add, client):
    name = add()
    evaluation = json.loads(errata("eval", "--edits", name, "--json").stdout)
    assert evaluation == client.get(f"/eval/{evaluation['id']}").json()
    assert evaluation["request"]["edits"] == [name]
    assert evaluation["state"] == "done"


def test_every_option_of_an_evaluation_arrives(errata, add):
    name = add()
    options = ("--against", "base", "--metric", "edit_success", "--seed", "3", "--max-new-tokens", "5")
    result = errata("eval", "--edits", name, *options, "--json")
    request = json.loads(result.stdout)["request"]
    wanted = {"against": "base", "metrics": ["edit_success"], "seed": 3, "max_new_tokens": 5}
    assert {option: request[option] for option in wanted} == wanted


def test_cases_of_a_file_arrive(errata, tmp_path):
    edit = {"kind": "qa", "prompt": "Who taught Ora Fenn?", "target": "Tia Marsh"}
    inside = {"prompt": "Who taught Ora Fenn?", "target": "Tia Marsh", "form": "edit"}
    outside = {"prompt": "Who taught Ada Fenn?", "target": "Lou Hart", "form": "near name"}
    first = {"id": "ora", "edit": edit, "in_scope": [inside], "out_of_scope": [outside], "previous": "Ben Locke"}
    claim = {"edit": {"kind": "fact", "claim": "Tea is a drink.", "label": True}, "in_scope": [inside]}
    statement = {"edit": {"kind": "statement", "statement": "Tea is hot."}, "in_scope": [inside]}
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(json.dumps(case) for case in (first, claim, statement, first)))
    options = ("--against", "serac", "--edits-at-once", "1,2", "--limit", "3", "--json")
    result = errata("eval", "--cases", str(file), "--format", "jsonl", *options)
    assert result.exit_code == 0, result.output
    request = json.loads(result.stdout)["request"]
    assert (request["against"], request["edits_at_once"]) == ("serac", [1, 2])
    assert [case["id"] for case in request["cases"]] == ["ora", "2", "3"]
    (sent, *others) = request["cases"]
    assert (sent["in_scope"], sent["out_of_scope"], sent["previous"]) == ([inside], [outside], "Ben Locke")
    assert (sent["edit"]["prompt"], sent["edit"]["target"]) == (edit["prompt"], edit["target"])
    assert [case["edit"]["kind"] for case in others] == ["fact", "statement"]


def test_the_report_is_written_as_a_page(errata, add, client, tmp_path):
    add(prompt="<b>Who?</b>")
    page = tmp_path / "report.html"
    result = errata("eval", "--edits", "active", "--html", str(page))
    assert result.exit_code == 0, result.output
    served_page = client.get(f"/eval/{kept(client)[0]['id']}/report")
    assert served_page.headers["content-type"].startswith("text/html")
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert "Figures" in page.read_text("utf-8")
    unwritable = errata("eval", "--edits", "active", "--html", str(tmp_path / "missing" / "report.html"))
    assert unwritable.exit_code == 1
    assert "cannot be written" in unwritable.stderr


def test_bad_cases_are_named_by_file_and_line_and_nothing_is_sent(errata, client, tmp_path):
    file = tmp_path / "cases.jsonl"
    file.write_text('{"in_scope": [{"prompt": "a"}]}\n')
    result = errata("eval", "--cases", str(file), "--format", "jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{file}, line 1" in result.stderr
    assert kept(client) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--suite", "drift", "--edits", "active"),
        ("--cases", "/no/such/file", "--format", "jsonl"),
        ("--cases", __file__),
        ("--cases", __file__, "--format", "csv"),
        ("--edits", "active", "--edits-at-once", "many"),
        ("--edits", "active", "--limit", "0"),
    ],
)
def test_a_misused_eval_ends_with_2_and_sends_nothing(errata, client, arguments):
    result = errata("eval", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert kept(client) == []


@pytest.mark.parametrize("arguments", [("--suite", "no such suite"), ("--edits", "active"), ("--edits", "e999")])
def test_what_the_service_refuses_ends_with_1(errata, arguments):
    result = errata("eval", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")


@pytest.fixture
def many_cases(tmp_path):
    """More cases than are evaluated while the caller waits."""
    case = {"in_scope": [{"prompt": "one two", "target": "two one"}]}
    file = tmp_path / "many.jsonl"
    file.write_text(f"{json.dumps(case)}\n" * 65)
    return "--cases", str(file), "--format", "jsonl"


def test_what_is_queued_is_waited_for(errata, many_cases):
    result = errata("eval", *many_cases, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["report"]["probes"] == 65


def heed_sigint():
    """What a terminal does: a shell starts what runs in its background deaf to Ctrl-C, these tests among it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_cancels_the_evaluation_on_the_server(idle, url, client, many_cases):
    command = [str(Path(sys.executable).with_name("errata")), "eval", *many_cases, "--url", url]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_sigint
    ) as process:
        assert process.stderr.readline() == "ev1 is queued: 65 probes\n"
        process.send_signal(signal.SIGINT)
        try:
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, stdout, stderr) == (130, "", "ev1 is cancelled\n")
    assert kept(client)[0]["state"] == "cancelled"


def test_an_evaluation_that_somebody_else_cancels_ends_with_1(idle, errata, client, many_cases):
    def cancel():
        while not kept(client):
            time.sleep(0.1)
        client.delete(f"/eval/{kept(client)[0]['id']}").raise_for_status()

    with ThreadPoolExecutor() as pool:
        cancelling = pool.submit(cancel)
        result = errata("eval", *many_cases)
        cancelling.result()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "error: ev1 was cancelled."


# errata smoke


def test_a_wrong_edit_fails_the_smoke_test_and_retracting_it_passes(errata, add, client, tmp_path):
    good_edit = add(**FRANCE, scope=FRANCE_SCOPE)
    good = errata("smoke")
    assert good.exit_code == 0, good.output
    wrong = add(**WRONG)
    junit = tmp_path / "smoke.xml"
    failed = errata("smoke", "--junit", str(junit), "--max-dd", "0")
    assert failed.exit_code == 1, failed.output
    row, success, drawdown, summary = failed.stdout.splitlines()
    texts = ["Who leads the world?", "world? the leads Who", "Boris Johnson"]
    assert row.split("\t") == [wrong, "1", "out of scope", *texts]
    assert success.startswith("ES at least 0.95: holds, 1.000")
    assert drawdown.startswith("DD at most 0: missed, ")
    assert summary.startswith("failed: 2 edits in force, 1 of ")
    marks = {case.attrib["name"]: [mark.tag for mark in case] for case in fromstring(junit.read_text())[0]}
    assert marks == {
        f"{wrong}: Who is the UK PM?": ["failure"],
        f"{good_edit}: Who leads France?": [],
        "ES at least 0.95": [],
        "DD at most 0": ["failure"],
    }
    client.delete(f"/edits/{wrong}").raise_for_status()
    assert errata("smoke", "--max-dd", "0").exit_code == 0


def test_the_bounds_are_those_given(errata, add):
    add(**FRANCE, scope=FRANCE_SCOPE)
    add(**WRONG)
    drawdown = json.loads(errata("smoke", "--json").stdout)["bounds"][1]["measured"]["value"]
    assert 0 < drawdown < 1
    assert errata("smoke", "--max-dd", str(drawdown)).exit_code == 0
    assert errata("smoke", "--max-dd", str(drawdown * 0.9)).exit_code == 1


def test_a_smoke_test_of_many_edits_changes_none_and_leaves_one_record(errata, add, client, monkeypatch):
    monkeypatch.setattr(smoke, "_PAGE", 2)
    for number in range(5):
        add(f"Question {number}?", "Yes")
    before = (client.get("/info").json(), client.get("/edits").json())
    verdict = json.loads(errata("smoke", "--json").stdout)
    assert (client.get("/info").json(), client.get("/edits").json()) == before
    assert verdict["edits"] == ["e5", "e4", "e3", "e2", "e1"]
    assert verdict["passed"] is True
    assert [one["id"] for one in kept(client)] == [verdict["evaluation"]]


def test_a_server_without_edits_passes_and_nothing_is_evaluated(errata, client):
    result = errata("smoke")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("passed: no edit is in force, so there is nothing to check\n")
    assert kept(client) == []
