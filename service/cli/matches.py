"""`errata match`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.client import DEFAULT_URL, Url, call
from service.cli.output import Json, show_json, show_table


def match(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...")],
    *,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Say which edit would answer each prompt, and why. Nothing is generated."""
    found = call(url, "POST", "/edits/match", body={"prompts": prompts})
    if as_json:
        show_json(found)
        return
    show_table(
        ("PROMPT", "DECISION", "EDIT", "BETA", "THRESHOLD"),
        (
            (prompt, one["decision"], one["edit_id"], one["beta"], one["threshold"])
            for prompt, one in zip(prompts, found["matches"], strict=True)
        ),
    )
