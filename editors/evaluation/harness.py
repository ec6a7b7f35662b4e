"""The harness: asks a model before and after its edits, and writes down a `Record` for each probe.

It works in steps, each a call of about a second that its caller makes wherever the model or the edits live; between
two steps the caller may do other work, or stop. Questions are put in batches across cases and edits, and the base is
asked each of them once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import islice
from typing import TypeVar

from editors.evaluation.asked import Asked, Question
from editors.evaluation.cases import Case, InScope
from editors.evaluation.fields import Fields
from editors.evaluation.records import Record
from editors.evaluation.subject import Subject
from editors.evaluation.subjects import MemorySubject
from editors.evaluation.trial import Side, Trial

_BATCHES_SORTED = 4
"""How many batches of probes have their questions sorted by length together, before they are cut into batches."""

T = TypeVar("T")
Apply = Callable[[Sequence[Case]], AbstractContextManager[Subject]]
"""The model with the edits of these cases in force, while the block runs."""


class Where(Enum):
    """What a step works on."""

    EDITS = "edits"
    """The edits: putting them in force, or a memory's decisions."""
    MODEL = "model"
    """The model: its answers."""


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work, to be done before the next one is asked for."""

    where: Where
    run: Callable[[], None]


class Harness:
    """Judges the probes of cases, group by group.

    Args:
        groups: Cases whose edits are in force together.
        base: The model without edits, and what it has answered so far.
        apply: Puts a group's edits in force. A `MemorySubject` on the base is asked for its decisions, and then only
            what the base has not answered yet.
        fields: What to find out.
        reader: The counterfactual model that the groups' memories share, where it is not the base.
        groups_at_once: Groups that may be in force at once, each on a subject of its own.
        questions_at_once: In one step.

    Attributes:
        records: Of the probes judged so far.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Case]],
        base: Asked,
        apply: Apply,
        fields: Fields,
        *,
        reader: Asked | None = None,
        groups_at_once: int = 1,
        questions_at_once: int = 64,
    ) -> None:
        self.records: list[Record] = []
        self._groups = groups
        self._base = base
        self._apply = apply
        self._fields = fields
        self._reader = reader
        self._groups_at_once = groups_at_once
        self._questions_at_once = questions_at_once
        self._probes_at_once = _BATCHES_SORTED * questions_at_once

    def run(self) -> list[Record]:
        """Do every step here and now."""
        for step in self.steps():
            step.run()
        return self.records

    def steps(self) -> Generator[Step, None, None]:
        """The work, step by step; close it to stop, which puts the edits out of force."""
        for window in self._windows():
            with ExitStack() as stack:
                trials: list[Trial] = []
                for group in window:
                    yield Step(Where.EDITS, partial(self._open, group, stack, trials))
                for chunk in _cut(trials, self._probes_at_once):
                    yield from self._judge(chunk)

    def _windows(self) -> Iterator[list[Sequence[Case]]]:
        """Groups that are in force together: enough to fill a chunk of probes, and not more than allowed."""
        window: list[Sequence[Case]] = []
        probes = 0
        for group in self._groups:
            window.append(group)
            probes += sum(len(case.probes) for case in group)
            if len(window) == self._groups_at_once or probes >= self._probes_at_once:
                yield window
                window, probes = [], 0
        if window:
            yield window

    def _open(self, group: Sequence[Case], stack: ExitStack, trials: list[Trial]) -> None:
        subject = stack.enter_context(self._apply(group))
        answering, reading = (
            (subject.base, subject.counterfactual) if isinstance(subject, MemorySubject) else (subject, subject)
        )
        asked, reader = self._asked_of(answering), self._asked_of(reading)
        for case in group:
            for probe in case.probes:
                wanted = self._fields.in_scope if isinstance(probe, InScope) else self._fields.out_of_scope
                before, after = Side(self._base, probe.prompt), Side(asked, probe.prompt)
                trials.append(Trial(case, probe, subject, before, after, reader, wanted))

    def _asked_of(self, subject: Subject) -> Asked:
        """What a subject has answered so far; the base and the reader of edits are the same from group to group."""
        known = next((asked for asked in (self._base, self._reader) if asked and asked.subject is subject), None)
        return known or Asked(subject)

    def _judge(self, trials: list[Trial]) -> Iterator[Step]:
        ruled = [trial for trial in trials if isinstance(trial.subject, MemorySubject)]
        for batch in _cut(ruled, self._questions_at_once):
            yield Step(Where.EDITS, partial(_rule, batch))
        yield from self._ask([question for trial in trials for question in trial.scores()])  # which tell some answers
        yield from self._ask([question for trial in trials for question in trial.answers()])
        yield from self._ask([question for trial in trials for question in trial.kept()])
        for trial in trials:
            if trial.diverges:
                yield Step(Where.MODEL, trial.diverge)
        self.records += [trial.record() for trial in trials]

    def _ask(self, questions: list[tuple[Asked, Question]]) -> Iterator[Step]:
        """Steps that put what has not been asked yet, those of like length together."""
        wanting: dict[Asked, dict[Question, None]] = {}
        for asked, question in questions:
            if question not in asked:
                wanting.setdefault(asked, {})[question] = None
        for asked, distinct in wanting.items():
            for batch in _cut(sorted(distinct, key=lambda q: len(q[0]) + len(q[1] or "")), self._questions_at_once):
                yield Step(Where.MODEL, partial(asked.ask, batch))


def _rule(trials: list[Trial]) -> None:
    """Let the memories decide, each on its own trials."""
    by_memory: dict[MemorySubject, list[Trial]] = {}
    for trial in trials:
        assert isinstance(trial.subject, MemorySubject), "only a memory decides"
        by_memory.setdefault(trial.subject, []).append(trial)
    for memory, own in by_memory.items():
        for trial, ruling in zip(own, memory.decide([trial.probe.prompt for trial in own]), strict=True):
            trial.rule(ruling)


def _cut(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
