"""One probe on its way to a record: whom to ask what, before and after the edit, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.evaluation.asked import Asked, Question
from editors.evaluation.cases import Case, InScope, OutOfScope
from editors.evaluation.counterfact import new_answer
from editors.evaluation.records import Record, RepliesScored
from editors.evaluation.sentiment import divergence, is_of_mood
from editors.evaluation.subject import Scored, Subject
from editors.evaluation.subjects import IMPOSSIBLE, Ruling, said


@dataclass(frozen=True, slots=True)
class Side:
    """Who answers a probe, and what they are asked in its place."""

    asked: Asked
    prompt: str
    verbatim: str | None = None

    def questions(self, targets: Sequence[str | None]) -> list[tuple[Asked, Question]]:
        """What to ask for an answer (None) or for the score of a target; nothing where the answer is given."""
        return [] if self.verbatim is not None else [(self.asked, (self.prompt, target)) for target in targets]

    @property
    def text(self) -> str:
        """The answer, once it has been asked for."""
        return self.asked.texts[self.prompt] if self.verbatim is None else self.verbatim.strip()

    def score(self, target: str) -> Scored:
        """The score of a target, once it has been asked for."""
        return self.asked.scores[self.prompt, target] if self.verbatim is None else said(self.verbatim, target)

    def distributions(self, targets: Sequence[str]) -> list[Tensor]:
        """As a `Subject` gives them for each target, asked here and now."""
        found = self.asked.subject.distributions([(self.prompt, target) for target in targets])
        return found if self.verbatim is None else [torch.full_like(each, IMPOSSIBLE) for each in found]


@dataclass(slots=True)
class Trial:
    """A probe, and who answers it.

    Attributes:
        subject: What is measured.
        reader: Who answers in the scope of an edit, where a memory decides.
        wanted: Fields of the record.
        ruling: Of a memory, once it has decided.
        divergence: Once it has been found out.
    """

    case: Case
    probe: InScope | OutOfScope
    subject: Subject
    before: Side
    after: Side
    reader: Asked
    wanted: frozenset[str]
    ruling: Ruling | None = None
    divergence: float | None = None

    @property
    def target(self) -> str | None:
        """The right answer; in the scope of an edit of mood no single one is."""
        return None if is_of_mood(self.case) and isinstance(self.probe, InScope) else self.probe.target

    def rule(self, ruling: Ruling) -> None:
        """Take a memory's decision: who answers after the edit."""
        self.ruling = ruling
        asked = self.after.asked if ruling.edit is None else self.reader
        self.after = Side(asked, ruling.reading(self.probe.prompt), ruling.verbatim)

    def scores(self) -> list[tuple[Asked, Question]]:
        """Whom to ask for which scores."""
        questions = [q for side, target in self._targets().values() for q in side.questions([target])]
        if "replies" in self.wanted and (replies := self.case.replies) is not None:
            for side in (self.before, self.after):
                questions += side.questions([*replies.wished, *replies.opposite])
        return questions

    def answers(self) -> list[tuple[Asked, Question]]:
        """Whom to ask for which answers."""
        before = self.before.questions([None]) if self.wanted & {"before", "kept"} else []
        return before + (self.after.questions([None]) if "after" in self.wanted else [])

    def kept(self) -> list[tuple[Asked, Question]]:
        """Whom to ask for the score of the base's answer, once that is known; an empty one has none."""
        return self.after.questions([self.before.text]) if self._keeps else []

    @property
    def diverges(self) -> bool:
        """Whether `diverge` has something to find out."""
        return "divergence" in self.wanted and self.case.replies is not None

    def diverge(self) -> None:
        """Find out how much the edit changes the distribution of the replies."""
        assert self.case.replies is not None, "only a sentiment edit has a divergence"
        replies = [*self.case.replies.wished, *self.case.replies.opposite]
        before = self.before.distributions(replies)
        after = before if self.after == self.before else self.after.distributions(replies)
        self.divergence = divergence(before, after)

    def record(self) -> Record:
        """What came of it, once everything has been asked."""
        case, probe, ruling = self.case, self.probe, self.ruling
        scores = {field: side.score(target) for field, (side, target) in self._targets().items()}
        if self._keeps:
            scores["kept"] = self.after.score(self.before.text)
        return Record(
            case=case.id,
            form=probe.form,
            in_scope=isinstance(probe, InScope),
            prompt=probe.prompt,
            target=self.target,
            previous=case.previous,
            before=self.before.text if "before" in self.wanted else None,
            after=self.after.text if "after" in self.wanted else None,
            replies=self._replies() if "replies" in self.wanted else None,
            divergence=self.divergence,
            beta=None if ruling is None else ruling.beta,
            edited=None if ruling is None else ruling.edit is not None,
            **scores,
        )

    @property
    def _keeps(self) -> bool:
        return "kept" in self.wanted and bool(self.before.text)

    def _targets(self) -> dict[str, tuple[Side, str]]:
        """The scores of the record by field: who gives it, of which target."""
        named = {
            "target": self.target,
            "previous": self.case.previous,
            "new": None if isinstance(self.probe, InScope) else new_answer(self.case),
        }
        fields: dict[str, tuple[Side, str | None]] = {}
        for name, target in named.items():
            fields |= {f"{name}_before": (self.before, target), f"{name}_after": (self.after, target)}
        return {field: (side, target) for field, (side, target) in fields.items() if field in self.wanted and target}

    def _replies(self) -> RepliesScored | None:
        if (replies := self.case.replies) is None:
            return None
        return RepliesScored(
            wished_before=tuple(self.before.score(reply) for reply in replies.wished),
            wished_after=tuple(self.after.score(reply) for reply in replies.wished),
            opposite_before=tuple(self.before.score(reply) for reply in replies.opposite),
            opposite_after=tuple(self.after.score(reply) for reply in replies.opposite),
        )
