"""Pairs from CounterFact and zsRE, whose files are kept outside the project."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from demo.scope.kinds import Pair
from demo.scope.splits import Split, split
from demo.scope.wording import Wording

_DRESSED = 0.35
_COUNTERFACT, _ZSRE = "counterfact-train.json", "zsre-train-700.json"


@dataclass(frozen=True, slots=True)
class Record:
    """A record of either set: an edit's prompt, a paraphrase, and an input that is not in scope."""

    subject: str
    prompt: str
    target: str
    rephrase: str
    neighbour: str

    @property
    def template(self) -> str:
        """The prompt without its subject: records that share it share the relation."""
        return self.prompt.replace(self.subject, "{}")


@dataclass(frozen=True)
class SharedPairs:
    """Draws pairs from the records of one split."""

    records: tuple[Record, ...]
    kind: str
    wording: Wording

    def in_scope(self, rng: Random) -> Pair | None:
        """The record's paraphrase, its prompt after some talk, or a claim about its fact."""
        record, draw = rng.choice(self.records), rng.random()
        if draw < 0.75:
            text = record.rephrase
        elif draw < 0.9 or not _completes(record):
            text = self.wording.after_talk(record.prompt, rng)
        else:
            text = self.wording.claim(f"{record.prompt} {record.target}.", rng)
        return self._pair(record, text, rng, label=True)

    def out_of_scope(self, rng: Random) -> Pair | None:
        """The record's neighbour, or the same question on another record's subject, the more alike the better."""
        record = rng.choice(self.records)
        alike = self._by_template[record.template]
        if rng.random() < 0.45 or len(alike) < 2:
            text = record.neighbour
        else:
            mine = set(record.subject.split())
            other = max(rng.sample(alike, min(6, len(alike))), key=lambda r: len(mine & set(r.subject.split())))
            if other.subject == record.subject:
                return None
            text = rng.choice((other.rephrase, other.prompt))
        return self._pair(record, text, rng, label=False)

    @cached_property
    def _by_template(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.template, []).append(record)
        return found

    def _pair(self, record: Record, text: str, rng: Random, *, label: bool) -> Pair | None:
        stated = _completes(record) and rng.random() < 0.2
        descriptor = f"{record.prompt} {record.target}." if stated else record.prompt
        if text == descriptor:
            return None
        if rng.random() < _DRESSED:
            text = self.wording.dress(text, record.subject, rng)
        return Pair(descriptor, text, label, f"{self.kind} {'in' if label else 'out of'} scope", record.subject)


def load_shared(folder: Path, of: Split, wording: Wording) -> tuple[SharedPairs, SharedPairs]:
    """CounterFact's pairs and zsRE's.

    Raises:
        FileNotFoundError: One of the two files is not in the folder; it says which and what to do.
    """
    return (
        SharedPairs(_records(folder / _COUNTERFACT, _counterfact, of), "counterfact", wording),
        SharedPairs(_records(folder / _ZSRE, _zsre, of), "zsre", wording),
    )


def talk_of(folder: Path) -> tuple[str, ...]:
    """The unrelated sentences that CounterFact puts before its paraphrases."""
    talk = set()
    for record in _records(folder / _COUNTERFACT, _counterfact, None):
        before, subject, _ = record.rephrase.partition(record.subject)
        if subject and len(before) > 12 and before.rstrip().endswith((".", "!", "?")):
            talk.add(before.strip())
    return tuple(sorted(talk))


def _records(path: Path, read: Callable[[dict[str, Any]], Record], of: Split | None) -> tuple[Record, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give --shared the folder that holds it, or leave --shared out.")
    records = (read(row) for row in json.loads(path.read_text(encoding="utf-8").replace("\\u00a0", " ")))
    return tuple(record for record in records if of is None or split(record.subject) == of)


def _counterfact(row: dict[str, Any]) -> Record:
    keys = ("subject", "prompt", "target_new", "rephrase_prompt", "locality_prompt")
    return Record(*(row[key] for key in keys))


def _zsre(row: dict[str, Any]) -> Record:
    return Record(row["subject"], row["src"], row["alt"], row["rephrase"], row["loc"].removeprefix("nq question: "))


def _completes(record: Record) -> bool:
    return not record.prompt.endswith("?")
