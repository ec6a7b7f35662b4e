"""Suites of a few cases, for runtimes on a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from editors.edit import QuestionAnswer
from editors.evaluation.cases import EDIT, Case, InScope, OutOfScope

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Peru": "Lima", "Kenya": "Nairobi", "Norway": "Oslo"}


def facts() -> tuple[Case, ...]:
    """Facts without edits."""
    return tuple(
        Case(id=country, in_scope=(InScope(f"What is the capital of {country}?", capital, EDIT),))
        for country, capital in CAPITALS.items()
    )


def drift() -> tuple[Case, ...]:
    """Edits that contradict them."""
    return tuple(
        Case(
            id=country,
            edit=QuestionAnswer(f"What is the capital of {country}?", f"New {capital}", country),
            in_scope=(
                InScope(f"What is the capital of {country}?", f"New {capital}", EDIT),
                InScope(f"Which city is the capital of {country}?", f"New {capital}"),
            ),
            out_of_scope=(OutOfScope("How tall is a giraffe?", "neighbour"),),
            previous=capital,
        )
        for country, capital in CAPITALS.items()
    )


SUITES: Mapping[str, Callable[[], Sequence[Case]]] = {"facts": facts, "drift": drift}
