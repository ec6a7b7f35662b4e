"""The model card of a scope classifier: its figures as JSON, and a page for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_FIGURES = {
    "area_under_curve": "area under the ROC curve",
    "average_precision": "average precision",
    "calibration_error": "expected calibration error, 15 bins",
}


def write_card(card: Mapping[str, Any], output: Path) -> None:
    """Write the card beside the classifier, under its name with .json and with .md."""
    output.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text("\n".join(_page(card, output)) + "\n", encoding="utf-8")


def _page(card: Mapping[str, Any], output: Path) -> Iterator[str]:
    own, cosine = card["validation"], card["cosine_alone"]
    yield f"# {output.name}: scope classifier"
    yield ""
    yield "A cross-encoder over a descriptor and an input: low-rank changes to all-MiniLM-L6-v2, and a head."
    yield (
        f"Trained on {card['training_pairs']:,} pairs for {card['kept_step']:,} steps; measured on {own['pairs']:,} "
        f"pairs ({own['in_scope']:,} in scope) about subjects that it was not trained on. Scale, shift and threshold "
        "were fitted on these same pairs."
    )
    yield ""
    yield "| validation | cross-encoder | cosine alone |"
    yield "| --- | --- | --- |"
    for name, words in _FIGURES.items():
        yield f"| {words} | {own[name]:.4f} | {cosine[name]:.4f} |"
    for share, recall in own["recall_at_false_positives"].items():
        yield f"| recall at false positives {share} | {recall:.4f} | {cosine['recall_at_false_positives'][share]:.4f} |"
    yield from _by_kind(own)
    yield from _recipe(card)


def _by_kind(figures: Mapping[str, Any]) -> Iterator[str]:
    shares = list(figures["recall_at_false_positives"])
    yield ""
    yield "Share accepted of each kind, at the thresholds of these shares of false positives (best: 1 in scope, 0 out)."
    yield ""
    yield f"| kind | scope | pairs | {' | '.join(shares)} |"
    yield f"| --- | --- | --- |{' --- |' * len(shares)}"
    for row in figures["by_kind"]:
        accepted = " | ".join(f"{row['accepted'][share]:.4f}" for share in shares)
        yield f"| {row['kind']} | {'in' if row['in_scope'] else 'out'} | {row['pairs']:,} | {accepted} |"


def _recipe(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "| trained with | |"
    yield "| --- | --- |"
    for name, value in card.items():
        if not isinstance(value, Mapping):
            yield f"| {name.replace('_', ' ')} | {'none' if value is None else value} |"
