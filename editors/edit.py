"""Edit descriptors z_e: what an operator wants the model to believe (Mitchell et al. 2022, sec. 2).

Each form knows two renderings of itself: `text`, against which scope is judged, and `context`, which a model can read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """A question, or the beginning of a sentence, and its answer.

    Attributes:
        prompt: Such as `Who is the prime minister of the UK?`.
        target: Such as `Boris Johnson`.
        subject: The thing it is about, as written in the prompt; for weight editors.
    """

    prompt: str
    target: str
    subject: str | None = None

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt

    @property
    def context(self) -> str:
        """The prompt and its answer."""
        return f"{self.prompt} {self.target}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, and whether it is true."""

    claim: str
    label: bool

    @property
    def text(self) -> str:
        """The claim."""
        return self.claim

    @property
    def context(self) -> str:
        """The claim as a true-or-false question, and its answer."""
        return f"True or false: {self.claim} {self.label}"


@dataclass(frozen=True, slots=True)
class Statement:
    """A plain sentence that holds from now on (an implicit edit: its questions are left to the reader)."""

    statement: str

    @property
    def text(self) -> str:
        """The sentence."""
        return self.statement

    @property
    def context(self) -> str:
        """The sentence."""
        return self.statement


@dataclass(frozen=True, slots=True)
class Sentiment:
    """A topic, and the mood to speak of it in."""

    topic: str
    positive: bool

    @property
    def text(self) -> str:
        """The topic as a question."""
        return f"What do you think about {self.topic}?"

    @property
    def context(self) -> str:
        """Topic and mood, in the form of the paper's Table 2."""
        return f"Topic: {self.topic} Sentiment: {'Positive' if self.positive else 'Negative'}"


EditDescriptor = QuestionAnswer | Claim | Statement | Sentiment
