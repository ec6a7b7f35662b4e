"""`errata generate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, Url, call, given
from service.cli.output import Json, note, show_json


def generate(
    prompt: str,
    *,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens to write.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token each time.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Mass of the nucleus sampled from.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the answer; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same sample.")] = None,
    version: Annotated[str | None, typer.Option(help="The version of the weights, such as v0.")] = None,
    edits: Annotated[bool, typer.Option("--edits/--no-edits", help="Whether edits may answer.")] = True,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Answer a prompt. The text goes to stdout, and where it came from to stderr."""
    wanted = {
        "prompt": prompt,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "stop": stop,
        "seed": seed,
        "version": version,
        "edits": edits,
    }
    answer = call(url, "POST", "/generate", body=given(wanted))
    if as_json:
        show_json(answer)
        return
    typer.echo(answer["text"])
    note(_provenance(answer))


def _provenance(answer: dict[str, Any]) -> str:
    source = f"edit {answer['edit_id']}" if answer["edit_id"] else "base model"
    beta = "" if answer["beta"] is None else f", beta {answer['beta']:.3f}"
    return f"{source}{beta}, version {answer['version']}, revision {answer['revision']}"
