"""The command against a running server, over a real socket."""

import asyncio
import json
import socket
from contextlib import contextmanager
from threading import Thread

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from service.actions.services import Services
from service.app import create_app
from service.cli import app
from service.store.jobs import work
from service.store.migrate import migrate
from service.store.store import PostgresStore
from service.wiring import jobs
from tests.fakes import ExactRuntime


@contextmanager
def served(database_url, *, working=False, runtime=ExactRuntime, baker=None, artifacts=None):
    """The address of a service on that database, in a thread of its own; whether it works on jobs."""
    listener = socket.create_server(("127.0.0.1", 0))  # accepts from now on, so clients may call before uvicorn is up
    servers = []

    async def serve():
        async with PostgresStore(database_url) as store:
            services = Services(store, runtime(store), baker, artifacts)
            servers.append(uvicorn.Server(uvicorn.Config(create_app(services), log_config=None)))
            tasks = [asyncio.create_task(work(database_url, jobs(services)))] if working else []
            await servers[0].serve(sockets=[listener])
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        httpx.get(f"{url}/livez", timeout=60, trust_env=False).raise_for_status()
        yield url
    finally:
        if servers:
            servers[0].should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def url(postgres):
    with postgres.database() as database_url:
        migrate(database_url)
        with served(database_url) as url:
            yield url


@pytest.fixture
def errata(url):
    def errata(*arguments, **environ):
        return CliRunner().invoke(app, arguments, env={"ERRATA_URL": url, **environ})

    return errata


@pytest.fixture
def add(errata):
    """Adds an edit, which must be accepted, and returns its id."""

    def add(*arguments):
        result = errata("edit", "add", *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["id"]

    return add


def test_an_edit_is_added_answers_and_is_retracted(errata):
    added = errata("edit", "add", "Who leads the UK?", "Boris Johnson")
    assert (added.exit_code, added.stderr) == (0, "")
    name, _, rest = added.stdout.partition(" ")
    assert rest.startswith("is active, at revision ")

    answer = errata("generate", "Who leads the UK?")
    assert (answer.exit_code, answer.stdout) == (0, "Boris Johnson\n")
    assert answer.stderr.startswith(f"edit {name}, beta 1.000, version v0, revision ")

    retracted = errata("edit", "retract", name, "--reason", "Elections.")
    assert (retracted.exit_code, retracted.stdout) == (0, f"{name} is retracted\n")
    assert errata("generate", "Who leads the UK?").stderr.startswith("base model")


def test_json_is_what_the_service_answers(errata, url, add):
    name = add("Who leads France?", "Macron")
    edit = httpx.get(f"{url}/edits/{name}", trust_env=False).json()
    assert json.loads(errata("edit", "show", name, "--json").stdout) == edit
    assert edit in json.loads(errata("edit", "list", "--json").stdout)["data"]
    assert json.loads(errata("generate", "Who leads France?", "--json").stdout)["edit_id"] == name
    assert json.loads(errata("match", "Who leads France?", "--json").stdout)["matches"][0]["edit_id"] == name


def test_every_option_of_an_edit_arrives(errata, add):
    old = add("Old?", "Yes")
    scope = ("--in-scope", "Spain's PM?", "--in-scope", "PM in Spain", "--out-of-scope", "Who is the king of Spain?")
    life = ("--expires-at", "2999-01-31T12:00:00Z", "--supersedes", old, "--reason", "Elections.")
    rest = ("--subject", "Spain", "--threshold", "0.75", "--verbatim", "--tag", "spain", "--tag", "politics")
    name = add("Who leads Spain?", "Sánchez", *scope, *life, *rest)
    edit = json.loads(errata("edit", "show", name, "--json").stdout)
    assert (edit["subject"], edit["answer"], edit["reason"]) == ("Spain", "verbatim", "Elections.")
    assert (edit["expires_at"], edit["supersedes"]) == ("2999-01-31T12:00:00Z", old)
    assert edit["tags"] == ["spain", "politics"]
    assert edit["scope"] == {
        "in_scope": ["Spain's PM?", "PM in Spain"],
        "out_of_scope": ["Who is the king of Spain?"],
        "threshold": 0.75,
    }
    shown = dict(line.split(maxsplit=1) for line in errata("edit", "show", name).stdout.splitlines())
    assert shown["in_scope"] == "Spain's PM?, PM in Spain"
    assert "superseded_by" not in shown


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (("--kind", "fact", "Tea is a drink.", "true"), {"claim": "Tea is a drink.", "label": True}),
        (("--kind", "fact", "Tea is a bird.", "False"), {"claim": "Tea is a bird.", "label": False}),
        (("--kind", "statement", "Tea is hot."), {"statement": "Tea is hot."}),
        (("--kind", "sentiment", "tea", "positive"), {"topic": "tea", "sentiment": "positive"}),
        (("Draft?", "Yes", "--draft"), {"prompt": "Draft?", "target": "Yes", "state": "draft"}),
    ],
)
def test_every_kind_of_edit_can_be_added(errata, add, arguments, fields):
    edit = json.loads(errata("edit", "show", add(*arguments), "--json").stdout)
    assert {name: edit[name] for name in fields} == fields


def test_the_list_is_narrowed_by_options_and_easy_to_cut(errata, add):
    names = [add(f"List {number}?", "a\tb\nc", "--tag", "listed") for number in range(3)]
    errata("edit", "retract", names[0])
    result = errata("edit", "list", "--tag", "listed", "--kind", "qa", "--q", "LIST", "--state", "active")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows == [
        [names[2], "active", "qa", "List 2?", "a b c", "listed"],
        [names[1], "active", "qa", "List 1?", "a b c", "listed"],
    ]
    first = errata("edit", "list", "--tag", "listed", "--state", "all", "--limit", "1")
    assert first.stdout.startswith(names[2])
    assert first.stderr == f"more: --after {names[2]}\n"
    rest = errata("edit", "list", "--tag", "listed", "--state", "all", "--after", names[2])
    assert [line.split("\t")[0] for line in rest.stdout.splitlines()] == [names[1], names[0]]


def test_the_list_is_a_table_on_a_terminal(errata, add):
    add("Table [red]?", "Yes", "--tag", "tabled")
    result = errata("edit", "list", "--tag", "tabled", FORCE_COLOR="1", NO_COLOR="1", COLUMNS="100")
    heading, row = result.stdout.splitlines()
    assert "PROMPT" in heading
    assert "Table [red]?" in row


def test_an_edit_is_paused_corrected_and_active_again(errata, add):
    name = add("Changed?", "Yes", "--expires-at", "2999-01-31T12:00:00Z")
    paused = errata("edit", "change", name, "--state", "paused", "--reason", "Review.", "--tag", "a", "--tag", "b")
    assert (paused.exit_code, paused.stdout.startswith(f"{name} is paused, at revision ")) == (0, True)
    assert errata("generate", "Changed?").stderr.startswith("base model")
    more = ("--state", "active", "--target", "No", "--expires-at", "never", "--json")
    edit = json.loads(errata("edit", "change", name, *more).stdout)
    assert (edit["reason"], edit["tags"], edit["expires_at"]) == ("Review.", ["a", "b"], None)
    assert errata("generate", "Changed?").stdout == "No\n"
    stale = errata("edit", "change", name, "--target", "x", "--if-match", str(edit["revision"] - 1))
    assert (stale.exit_code, "at revision" in stale.stderr) == (1, True)
    other = add("Another?", "Yes", "--draft")
    assert errata("edit", "change", other, "--state", "active", "--supersedes", name).exit_code == 0
    assert errata("edit", "change", name, "--state", "active").exit_code == 1


def test_edits_are_exported_and_imported_as_a_file(errata, add, postgres, tmp_path):
    add("Exported?", "Yes", "--tag", "moved", "--reason", "Why not.")
    add("--kind", "fact", "Exports work.", "true", "--tag", "moved")
    file = tmp_path / "edits.ndjson"
    exported = errata("edit", "export", str(file), "--tag", "moved")
    assert (exported.exit_code, exported.stdout, exported.stderr) == (0, "", "2 edits exported\n")
    assert errata("edit", "export", "--tag", "moved").stdout == file.read_text()
    assert list(tmp_path.iterdir()) == [file]
    with postgres.database() as database_url:
        migrate(database_url)
        with served(database_url) as url:
            imported = errata("edit", "import", str(file), ERRATA_URL=url)
            assert (imported.exit_code, imported.stdout) == (0, "2 edits imported, at revision 2\n")
            assert errata("edit", "export", ERRATA_URL=url).stdout == file.read_text()
            piped = CliRunner().invoke(
                app, ["edit", "import", "-", "--json", "--url", url], input='{"prompt": "a", "target": "b"}\n'
            )
            assert json.loads(piped.stdout) == {"imported": 1, "ids": ["e3"], "revision": 3}


def test_an_import_that_is_refused_names_the_lines(errata, add, tmp_path):
    name = add("In the way?", "Yes")
    file = tmp_path / "edits.ndjson"
    file.write_text('{"prompt": "a"}\n{"prompt": "In the way?", "target": "No"}\n')
    refused = errata("edit", "import", str(file))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: 2 lines cannot be imported; line 1: `target` is required.\nhint: ")
    assert refused.stderr.endswith(f"line 1: `target` is required\nline 2: {name} already answers this prompt\n")


def test_files_that_cannot_be_read_or_written_are_named(errata, tmp_path):
    for command, code in (("import", 2), ("export", 1)):
        result = errata("edit", command, str(tmp_path))
        assert (result.exit_code, str(tmp_path) in result.stderr) == (code, True)


def test_a_preview_shows_both_answers_and_adds_nothing(errata, add):
    name = add("Previewed?", "Yes")
    result = errata("edit", "preview", "previewed", "No", "--probe", "Previewed?", "--probe", "one two")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows == [["Previewed?", "1", "Yes", "No"], ["one two", "0", "two one", "two one"]]
    assert result.stderr == f"{name} already answers this prompt: add the edit with --supersedes {name}\n"
    assert json.loads(errata("edit", "preview", "--kind", "statement", "New.", "--json").stdout)["conflicts"] == []
    assert errata("edit", "list", "--q", "New").stdout == ""


def test_a_match_says_why(errata, add):
    name = add("Match?", "Yes")
    rows = errata("match", "match", "Nothing like it").stdout.splitlines()
    assert rows == [f"match\tin_scope\t{name}\t1\t0.5", "Nothing like it\tbelow_threshold\t\t0\t0.5"]


def test_every_option_of_generate_arrives(errata, add):
    add("one two three", "four")
    options = ("--no-edits", "--max-new-tokens", "2", "--temperature", "0", "--top-p", "1", "--seed", "7")
    result = errata("generate", "one two three", *options, "--stop", "END", "--version", "v0", "--json")
    answer = json.loads(result.stdout)
    assert (answer["text"], answer["source"], answer["finish_reason"]) == ("three two", "base", "length")
    for wrong in ("--temperature=3", "--top-p=0", "--seed=-1", "--stop=", "--version=v9"):
        assert errata("generate", "a", wrong).exit_code == 1, wrong


def test_what_the_service_refuses_ends_with_1_and_its_own_words(errata, add):
    name = add("Refused?", "Yes")
    conflict = errata("edit", "add", "Refused?", "No")
    assert (conflict.exit_code, conflict.stdout) == (1, "")
    assert conflict.stderr == (
        f"error: {name} already answers this prompt, with another target.\n"
        "hint: Send its id as `supersedes` to replace it, or retract it first.\n"
    )
    assert errata("edit", "show", "e/../../livez").exit_code == 1
    assert errata("edit", "retract", name, "--if-match", "999999").exit_code == 1
    revision = json.loads(errata("edit", "show", name, "--json").stdout)["revision"]
    assert errata("edit", "retract", name, "--if-match", str(revision)).exit_code == 0


def test_a_proxy_is_not_asked_for_a_service_on_this_machine(errata):
    elsewhere = "http://127.0.0.1:1"
    result = errata("edit", "list", HTTP_PROXY=elsewhere, http_proxy=elsewhere, ALL_PROXY=elsewhere, no_proxy="")
    assert result.exit_code == 0
