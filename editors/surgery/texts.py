"""Text corpora: what key statistics are collected over."""

from __future__ import annotations

import json
from pathlib import Path

from editors.errors import InvalidDataset

_SHAPES = "Give a .txt file with a text a line, or a .jsonl file with objects that have a `text`."


def read_texts(path: Path) -> list[str]:
    """The texts of a file, in order: the lines of a .txt, or the `text` of each line of a .jsonl; blank ones left out.

    Raises:
        InvalidDataset: The file cannot be read, is of another kind, has no text, or a bad line, which is named.
    """
    if path.suffix not in {".txt", ".jsonl"}:
        raise InvalidDataset(f"{path} is no corpus by its name.", hint=_SHAPES)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"The corpus {path} cannot be read: {error}.", hint=_SHAPES) from error
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    texts = [_text(path, number, line) if path.suffix == ".jsonl" else line.strip() for number, line in filled]
    texts = [text for text in texts if text]
    if not texts:
        raise InvalidDataset(f"The corpus {path} has no text.", hint=_SHAPES)
    return texts


def _text(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(f"{path}, line {number}: it is no object with a `text`.", hint=_SHAPES) from error
    if not isinstance(text, str):
        raise InvalidDataset(f"{path}, line {number}: `text` must be a text.", hint=_SHAPES)
    return text.strip()
