"""A subject that is asked each question once, and not at all where another answer has told."""

from __future__ import annotations

from collections.abc import Sequence

from editors.evaluation.subject import Scored, Subject

Question = tuple[str, str | None]
"""A prompt; with a target where its score is asked for, with None where an answer is."""


class Asked:
    """What a subject has answered so far.

    Attributes:
        texts: Its answers, by prompt.
        scores: Its scores, by prompt and target.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.texts: dict[str, str] = {}
        self.scores: dict[tuple[str, str], Scored] = {}

    def __contains__(self, question: Question) -> bool:
        prompt, target = question
        return prompt in self.texts if target is None else (prompt, target) in self.scores

    def ask(self, questions: Sequence[Question]) -> None:
        """Put questions, all of one kind or both, and remember what comes."""
        prompts = [prompt for prompt, target in questions if target is None]
        pairs = [(prompt, target) for prompt, target in questions if target is not None]
        if prompts:
            self.texts |= zip(prompts, self.subject.generate(prompts), strict=True)
        if pairs:
            scores = dict(zip(pairs, self.subject.score(pairs), strict=True))
            self.scores |= scores
            self.texts |= {prompt: s.answer for (prompt, _), s in scores.items() if s.answer is not None}
