"""`errata bench` against running services, and against servers that answer as none should."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import app
from service.cli.load import Load, Plan
from service.cli.load_report import percentile
from service.store.migrate import migrate
from tests.integration.api.test_api_cli import served

ANSWER = {"text": "Yes", "source": "base", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}


@pytest.fixture
def url(postgres):
    """A service with one edit, of one question."""
    with postgres.database() as database_url:
        migrate(database_url)
        with served(database_url) as url:
            edit = {"prompt": "Who leads the UK?", "target": "Boris Johnson"}
            httpx.post(f"{url}/edits", json=edit, trust_env=False).raise_for_status()
            yield url


@pytest.fixture
def bench(tmp_path):
    """Runs the command on prompts, and gives what it printed, and the figures."""

    def bench(url, lines, *arguments, suffix=".txt", **environ):
        prompts, figures = tmp_path / f"prompts{suffix}", tmp_path / "figures.json"
        prompts.write_text("\n".join(lines), encoding="utf-8")
        command = ["bench", "--prompts", str(prompts), "--json", str(figures), *arguments]
        result = CliRunner().invoke(app, command, env={"ERRATA_URL": url, **environ})
        return result, json.loads(figures.read_text()) if figures.exists() else None

    return bench


@contextmanager
def answering(answer, server=ThreadingHTTPServer):
    """The address of a server that is asked as Errata is, and answers questions with what `answer` gives."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(json.dumps({"model": "a", "errata": "0", "version": "v0", "edits": 0}).encode())

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers["Authorization"])
            self._send(answer(len(seen)))

        def _send(self, content):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with server(("127.0.0.1", 0), Handler) as running:
        running.request_queue_size = 64
        running.socket.listen(64)
        thread = Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", seen
        running.shutdown()
        thread.join()


def asked(url):
    """How many questions the service has been sent, by status."""
    page = httpx.get(f"{url}/metrics", trust_env=False).text
    lines = re.findall(
        r'^http_requests_total\{handler="/generate",method="POST",status="(\d+)"\} (\S+)$', page, re.MULTILINE
    )
    return {int(status): float(count) for status, count in lines}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("come", [("--clients", "3"), ("--rate", "500")])
def test_so_many_questions_are_asked_and_what_came_of_them_is_counted(url, bench, come, stream):
    lines = ["Who leads the UK?", "What is tea?"]
    result, found = bench(url, lines, *come, "--requests", "30", "--stream" if stream else "--no-stream")
    assert result.exit_code == 0, result.output
    assert asked(url) == {200: 30.0}
    assert (found["requests"], found["answered"], found["errors"], found["by_edit"]) == (30, 30, {}, 0.5)
    assert (found["prompt_tokens"], found["completion_tokens"]) == (15 * 4 + 15 * 3, 15 * 2 + 15 * 3)
    assert found["tokens_per_second"] == pytest.approx(75 / found["seconds"])
    for times in (found["latency_ms"], found["first_token_ms"])[: 1 + stream]:
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert (found["first_token_ms"] is not None) == stream
    assert "answered    30 of 30 in " in result.stdout
    assert "by an edit  50.0%" in result.stdout


def test_without_a_file_plain_questions_are_asked_and_those_of_the_edits_in_force(url):
    result = CliRunner().invoke(app, ["bench", "--requests", "17"], env={"ERRATA_URL": url})
    assert result.exit_code == 0, result.output
    assert "answered    17 of 17" in result.stdout
    assert f"by an edit  {1 / 17:.1%}" in result.stdout


def test_a_line_of_json_is_a_body_that_may_say_more_than_the_command(url, bench):
    lines = [json.dumps({"prompt": "a b c d", "max_new_tokens": 1}), json.dumps({"prompt": "a b c d", "edits": False})]
    _, found = bench(url, lines, "--requests", "4", "--max-new-tokens", "3", suffix=".jsonl")
    assert (found["answered"], found["completion_tokens"]) == (4, 2 * 1 + 2 * 3)


def test_refusals_are_counted_by_status_and_their_times_left_out(url, bench):
    long = "word " * 100
    result, found = bench(url, ["What is tea?", long], "--requests", "10")
    assert result.exit_code == 0
    assert (found["answered"], found["errors"]) == (5, {"422 prompt-too-long": 5})
    assert "errors      5 x 422 prompt-too-long" in result.stdout
    result, found = bench(url, [long], "--requests", "3")
    assert (result.exit_code, found["latency_ms"]) == (1, None)
    assert "no request was answered" in result.stderr


def test_a_run_ends_after_its_seconds(url, bench):
    result, found = bench(url, ["What is tea?"], "--rate", "50", "--duration", "0.5")
    assert result.exit_code == 0
    assert asked(url) == {200: found["answered"]}
    assert 1 <= found["answered"] < 100


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b'event: error\ndata: {"status": 503, "type": "/problems/engine-failed"}\n\n', "503 engine-failed"),
        (b'event: text\ndata: {"text": "Ye"}\n\n', "cut off"),
        (b"event: end\ndata: <html>\n\n", "no answer (not JSON)"),
    ],
)
def test_a_stream_that_does_not_end_as_it_should_is_an_error(bench, sent, status):
    with answering(lambda _: sent) as (url, _):
        _, found = bench(url, ["a"], "--requests", "2")
    assert found["errors"] == {status: 2}


def test_arrivals_do_not_wait_for_answers_and_bring_the_key(bench):
    together = Barrier(20)

    def answer(_):
        together.wait(60)  # nobody is answered before all have come
        return json.dumps(ANSWER).encode()

    with answering(answer) as (url, seen):
        arguments = ("--rate", "1000", "--requests", "20", "--no-stream")
        _, found = bench(url, ["a"], *arguments, ERRATA_API_KEY="errata_k1_secret")
    assert (found["answered"], set(seen)) == (20, {"Bearer errata_k1_secret"})


def test_while_a_server_stands_still_those_who_would_have_asked_are_charged_to_it(bench):
    def answer(number):
        time.sleep(0.5 if number == 1 else 0)
        return json.dumps(ANSWER).encode()

    with answering(answer, HTTPServer) as (url, _):  # which answers one after the other
        _, found = bench(url, ["a"], "--rate", "100", "--requests", "20", "--no-stream")
    assert found["answered"] == 20
    assert found["latency_ms"]["p50"] > 250  # ten of the twenty come within a quarter of a second


def run(plan, answer):
    async def ran():
        async with httpx.AsyncClient(base_url="http://errata", transport=httpx.MockTransport(answer)) as client:
            load = Load(client, plan, [{"prompt": "a"}])
            await load.run()
            return load.outcomes

    return asyncio.run(ran())


def test_a_question_that_is_sent_late_is_late_from_when_it_was_due():
    def answer(_):
        time.sleep(0.05)  # nothing else is sent meanwhile: the client itself stands still
        return httpx.Response(200, json=ANSWER)

    outcomes = run(Plan(rate=1000, requests=10), answer)
    last = max(outcomes, key=lambda outcome: outcome.done)
    assert last.done >= 10 * 0.05
    assert last.latency == last.done - last.due > last.done - last.sent


def test_the_same_seed_draws_the_same_arrivals():
    def due(seed):
        outcomes = run(Plan(rate=2000, requests=50, seed=seed), lambda _: httpx.Response(200, json=ANSWER))
        return sorted(outcome.due for outcome in outcomes)

    assert due(1) == due(1) != due(2)
    gaps = [later - earlier for earlier, later in zip([0.0, *due(1)], due(1), strict=False)]
    assert 0.5 < 2000 * sum(gaps) / len(gaps) < 2
    assert max(gaps) > 3 * sorted(gaps)[25]  # as random arrivals have them, and a clock does not


def test_a_percentile_is_a_value_that_was_seen():
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([3.0], 99) == 3.0


def test_ctrl_c_ends_it_with_what_there_is(url):
    command = [str(Path(sys.executable).with_name("errata")), "bench", "--duration", "600", "--url", url]
    running = interruptible(command)
    try:
        while asked(url).get(200, 0) < 20:
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 130, stderr
    assert re.search(r"^answered +[\d,]+ of [\d,]+ in ", stdout, re.MULTILINE)
    assert "Traceback" not in stderr


def interruptible(command):
    """A process that Ctrl-C reaches, also where the tests run in the background, in which shells ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("lines", "suffix", "said"),
    [([], ".txt", "holds no prompt"), (["{}", "tea"], ".jsonl", "Line 2 is not a JSON object")],
)
def test_a_file_that_holds_no_prompts_is_named_before_anything_is_sent(bench, lines, suffix, said):
    result, _ = bench("http://127.0.0.1:1", lines, suffix=suffix)
    assert (result.exit_code, said in " ".join(re.split(r"[\s│]+", result.stderr))) == (2, True)
