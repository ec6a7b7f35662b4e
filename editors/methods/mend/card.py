"""The model card of a trained editor: its figures as JSON, and a page for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def write_card(card: Mapping[str, Any], output: Path) -> None:
    """Write the card beside the editor, which is there already, under its name with .json and with .md."""
    output.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text("\n".join(_page(card, output)) + "\n", encoding="utf-8")


def _page(card: Mapping[str, Any], output: Path) -> Iterator[str]:
    yield f"# {output.name}: MEND editor of {card['trained_for']}"
    yield ""
    yield (
        "Turns the gradient of an edit into a change of the weights. It fits this one model and no other, and takes "
        f"{output.stat().st_size / 1e6:.1f} MB."
    )
    yield (
        f"Trained on {card['training_cases']:,} edits for {card['kept_step']:,} steps; measured on edits of subjects "
        "that it was not trained on."
    )
    yield ""
    ends = "" if card["network"]["end"] is None else ", the end of the answer included: as it would be freely generated"
    yield (
        f"Teacher-forced{ends}; edits as the networks give them, not settled. Shares of probes; Wilson's 95% interval."
    )
    yield ""
    yield "| edits at once | ES | DD | probes in scope, out of scope |"
    yield "| --- | --- | --- | --- |"
    for size, own in card["validation"].items():
        es, dd = own["es"], own["dd"]
        yield f"| {size} | {_shown(es)} | {_shown(dd)} | {es['cases']:,}, {dd['cases']:,} |"
    yield ""
    yield "| trained with | |"
    yield "| --- | --- |"
    for name, value in (*card["network"].items(), *card.items()):
        if not isinstance(value, Mapping):
            yield f"| {name.replace('_', ' ')} | {value} |"


def _shown(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
