"""Which edits are held together."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from editors.edit import EditDescriptor
from editors.evaluation.cases import Case


def grouped(cases: Sequence[Case], edits: int, *, seed: int) -> list[tuple[Case, ...]]:
    """Cases in groups that hold `edits` edits together, in an order drawn with the seed; the last hold fewer.

    Two edits that settle the same thing differently never share a group, since only one of them could hold. Cases
    without an edit are all in the first group.
    """
    groups: list[list[Case]] = []
    filling: list[tuple[list[Case], dict[str, EditDescriptor]]] = []
    order = Random(seed).sample(cases, len(cases))
    for case in sorted(order, key=lambda case: case.edit is not None):
        place = next((place for place in filling if _agrees(case.edit, place[1])), None)
        if place is None:
            place = ([], {})
            groups.append(place[0])
            filling.append(place)
        place[0].append(case)
        if case.edit is not None:
            place[1][_settled(case.edit)] = case.edit
        if len(place[1]) == edits:
            filling.remove(place)
    return [tuple(group) for group in groups]


def _agrees(edit: EditDescriptor | None, held: dict[str, EditDescriptor]) -> bool:
    return edit is None or held.get(_settled(edit), edit) == edit


def _settled(edit: EditDescriptor) -> str:
    """What an edit is about, without what two writers of it may do differently."""
    return " ".join(edit.text.casefold().split())
