"""`errata bench`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, REFUSED, Url, asynchronous, call, given
from service.cli.following import counted, staged
from service.cli.load import Load, Plan
from service.cli.load_report import figures
from service.cli.output import failure, note, save, show_fields, show_table

_INTERRUPTED = 130
_SECONDS = 10.0
"""Of a run whose length nobody said."""
_SECONDS_BETWEEN_LOOKS = 0.2
_LATE_MS = 50
"""A client that sends later than this measures itself."""
_LINES_OF_JSON = {".jsonl", ".ndjson"}
_PLAIN = (
    "What is the capital of France?",
    "Who wrote Hamlet?",
    "What is the currency of Japan?",
    "In which country is the city of Nairobi?",
    "What is the official language of Brazil?",
    "Who painted the Mona Lisa?",
    "On which continent is Peru?",
    "Who is the president of Kenya?",
    "What sport does Serena Williams play?",
    "Where was Marie Curie born?",
    "What is the capital of Canada?",
    "Who discovered penicillin?",
    "Which river flows through Vienna?",
    "Who is the head coach of the national team?",
    "What does a geologist study?",
    "The author of War and Peace is",
)


def bench(
    *,
    prompts: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A prompt a line; in a .jsonl file, a body of POST /generate a line. "
            "When left out: plain questions, and as many of those that edits in force answer.",
        ),
    ] = None,
    clients: Annotated[
        int | None, typer.Option(min=1, help="So many, who each ask again when answered; 8 when left out.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second, at random moments, however many wait.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Stop after so many seconds; 10 when neither is given.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="Above 0, no answer comes from the answer cache.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Whether answers are streamed, and first tokens timed.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Draws the moments and the order of the prompts.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures to this file.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Load a service that runs, and say how quickly it answers. Ctrl-C ends it early, with what there is.

    errata bench --clients 32
    errata bench --rate 20 --duration 60 --prompts questions.txt --json bench.json
    """
    if clients is not None and rate is not None:
        raise typer.BadParameter("Give one of the two.", param_hint="--clients, --rate")
    if requests is None and duration is None:
        duration = _SECONDS
    plan = Plan(clients=clients or 8, rate=rate, requests=requests, seconds=duration, seed=seed)
    how = given({"max_new_tokens": max_new_tokens, "temperature": temperature, "stream": stream})
    own = None if prompts is None else _read(prompts)
    info = call(url, "GET", "/info")
    questions = [how | question for question in (own if own is not None else _offered(url, seed))]
    note(f"{info['model']} at {url}: {_said(plan)}")
    load, interrupted = _run(url, plan, questions)
    found = figures(load.outcomes)
    if json_file is not None:
        told = {"url": url, **{name: info[name] for name in ("errata", "model", "version", "edits")}}
        settings = {"clients": None if rate is not None else plan.clients, "rate": rate, "seed": seed, **how}
        save(json_file, json.dumps(told | settings | found, indent=2) + "\n", REFUSED)
    _show(found)
    if interrupted:
        raise typer.Exit(_INTERRUPTED)
    if not found["answered"]:
        raise failure(
            "no request was answered.", "`errata generate` asks one question, and says what is wrong.", REFUSED
        )


def _read(path: Path) -> list[dict[str, Any]]:
    """The questions of a file.

    Raises:
        typer.BadParameter: There is none, or a line is none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}.", param_hint="--prompts") from None
    as_json = path.suffix in _LINES_OF_JSON
    questions = [_question(line, number, as_json=as_json) for number, line in enumerate(lines, 1) if line]
    if not questions:
        raise typer.BadParameter(f"{path} holds no prompt.", param_hint="--prompts")
    return questions


def _question(line: str, number: int, *, as_json: bool) -> dict[str, Any]:
    if not as_json:
        return {"prompt": line}
    try:
        question = json.loads(line)
    except ValueError:
        question = None
    if not isinstance(question, dict):
        raise typer.BadParameter(f"Line {number} is not a JSON object.", param_hint="--prompts")
    return question


def _offered(url: str, seed: int) -> list[dict[str, Any]]:
    """Plain questions, and up to as many that the edits in force are about."""
    edits = call(url, "GET", "/edits", params={"state": "active", "limit": 200})["data"]
    asked = [text for edit in edits for text in (edit.get("prompt"), *edit["scope"]["in_scope"]) if text]
    drawn = Random(seed).sample(asked, min(len(asked), len(_PLAIN)))
    return [{"prompt": prompt} for prompt in (*_PLAIN, *drawn)]


def _said(plan: Plan) -> str:
    come = f"{plan.rate:g} requests a second" if plan.rate is not None else f"{plan.clients:,} clients"
    ends = [] if plan.requests is None else [f"{plan.requests:,} requests"]
    ends += [] if plan.seconds is None else [f"{plan.seconds:g} s"]
    return f"{come}, {' or '.join(ends)}"


def _run(url: str, plan: Plan, questions: list[dict[str, Any]]) -> tuple[Load, bool]:
    """The load, behind a progress bar, and whether Ctrl-C ended it."""
    client = asynchronous(url)
    load = Load(client, plan, questions)

    async def run() -> None:
        async with client:
            await _followed(load, plan)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        return load, True
    return load, False


async def _followed(load: Load, plan: Plan) -> None:
    with counted() if plan.seconds is None else staged() as progress:
        task = progress.add_task("", total=plan.requests if plan.seconds is None else plan.seconds)

        async def follow() -> None:
            while True:
                ended = len(load.outcomes)
                failed = sum(one.answer is None for one in load.outcomes)
                description = f"{ended - failed:,} answered, {failed:,} not"
                progress.update(
                    task, description=description, completed=ended if plan.seconds is None else load.seconds
                )
                await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

        following = asyncio.create_task(follow())
        try:
            await load.run()
        finally:
            following.cancel()


def _show(found: dict[str, Any]) -> None:
    times = {"latency": found["latency_ms"], "first token": found["first_token_ms"]}
    shown = {name: one for name, one in times.items() if one is not None}
    if shown:
        rows = [(name, *(f"{value:.1f}" for value in one.values())) for name, one in shown.items()]
        show_table(("MILLISECONDS", "P50", "P90", "P99", "MAX"), rows)
    show_fields(
        {
            "answered": f"{found['answered']:,} of {found['requests']:,} in {found['seconds']:.1f} s",
            "requests/s": f"{found['requests_per_second']:.1f}",
            "tokens/s": f"{found['tokens_per_second']:.1f}",
            "by an edit": None if found["by_edit"] is None else f"{found['by_edit']:.1%}",
            "errors": [f"{count:,} x {status}" for status, count in found["errors"].items()],
        }
    )
    late = found["sent_late_ms"]
    if late is not None and late["p99"] > _LATE_MS:
        note(f"This client sent up to {late['max']:.0f} ms late, which is in the figures: it has too much to do.")
