"""The training pairs of the scope classifier: read from a file, checked, and split by subject."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editors.errors import InvalidTrainingData

LEAST_PER_CLASS = 20
"""Fewer pairs of a class say nothing about calibration, nor about a share of false positives."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A descriptor's text and an input, and whether the input is in its scope.

    Attributes:
        descriptor: Text of the descriptor.
        input: What a user might write.
        label: 1 in scope, 0 out of scope.
        kind: The sort of pair, such as `paraphrase` or `reversed`; results are reported by it.
        subject: What the descriptor is about; all pairs of a subject are trained on, or none.
    """

    descriptor: str
    input: str
    label: int
    kind: str
    subject: str

    @property
    def texts(self) -> tuple[str, str]:
        """Descriptor and input."""
        return self.descriptor, self.input


_FIELDS = {field.name for field in fields(LabelledPair)}


def read_pairs(path: Path) -> list[LabelledPair]:
    """Read one pair from each line of a JSONL file; a pair that is there twice counts once.

    Raises:
        InvalidTrainingData: The file cannot be read, a line is malformed, or two lines contradict each other.
    """
    first_lines: dict[tuple[str, str], tuple[int, LabelledPair]] = {}
    for number, line in enumerate(_lines(path), start=1):
        pair = _parse(path, number, line)
        at, known = first_lines.setdefault(pair.texts, (number, pair))
        if known.label != pair.label:
            raise InvalidTrainingData(
                f"{path}, line {number}: this pair has label {pair.label}, and label {known.label} in line {at}.",
                hint="Remove one of the two lines.",
            )
    return [pair for _, pair in first_lines.values()]


def split_pairs(
    path: Path, pairs: Sequence[LabelledPair], validation_share: float
) -> tuple[list[LabelledPair], list[LabelledPair]]:
    """Pairs to train on and pairs to validate on, without a common subject.

    A subject's side depends on its name alone, so that more data moves nobody across.

    Args:
        path: Where they come from, for messages.
        pairs: All of them.
        validation_share: Of the subjects, about; in (0, 1).

    Raises:
        InvalidTrainingData: One side has too few pairs of a class.
    """
    train = [pair for pair in pairs if _draw(pair.subject) >= validation_share]
    validation = [pair for pair in pairs if _draw(pair.subject) < validation_share]
    for side, name in ((train, "training"), (validation, "validation")):
        inside = sum(pair.label for pair in side)
        if min(inside, len(side) - inside) < LEAST_PER_CLASS:
            raise InvalidTrainingData(
                f"{path} leaves {inside} pairs in scope and {len(side) - inside} out of scope for {name}; "
                f"at least {LEAST_PER_CLASS} of each are needed.",
                hint="Add pairs of both labels and of more subjects, or choose another validation share.",
            )
    return train, validation


def labels_of(pairs: Sequence[LabelledPair]) -> NDArray[np.bool_]:
    """Whether each pair is in scope, [n]."""
    return np.array([pair.label == 1 for pair in pairs])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTrainingData(
            f"{path} cannot be read: {error}.", hint="Name a file of JSON lines in UTF-8."
        ) from error


def _parse(path: Path, number: int, line: str) -> LabelledPair:
    try:
        return LabelledPair(**_checked(json.loads(line)))
    except ValueError as error:
        raise InvalidTrainingData(
            f"{path}, line {number}: {error}.",
            hint='A line is {"descriptor": "...", "input": "...", "label": 0 or 1, "kind": "...", "subject": "..."}.',
        ) from error


def _checked(read: Any) -> dict[str, Any]:
    if not isinstance(read, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - it is the data's fault, not the caller's
    if differing := _FIELDS ^ set(read):
        raise ValueError(f"fields are missing or unknown: {', '.join(sorted(differing))}")
    if empty := _not_texts(read, _FIELDS - {"label"}):
        raise ValueError(f"these must be texts, and not empty: {', '.join(empty)}")
    if type(read["label"]) is not int or read["label"] not in (0, 1):  # True is 1 to Python and a slip to us
        raise ValueError(f"label is {json.dumps(read['label'])}; it must be 0 or 1")
    return read


def _not_texts(read: dict[str, Any], names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not isinstance(read[name], str) or not read[name].strip())


def _draw(subject: str) -> float:
    """A number in [0, 1) that belongs to a subject, however it is capitalised or spaced."""
    digest = hashlib.sha256(" ".join(subject.casefold().split()).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
