"""Cases: an edit, and the prompts that say whether it worked and whether it broke anything."""

from __future__ import annotations

from dataclasses import dataclass

from editors.edit import EditDescriptor

EDIT, PARAPHRASE, ENTAILED, COMPOSED = "edit", "paraphrase", "entailed", "composed"
"""Forms of in-scope probes: the edit's own prompt; the same in other words; what follows from it, with another answer
(true-or-false claims among them); and questions that take a further step from it (portability)."""


@dataclass(frozen=True, slots=True)
class InScope:
    """A prompt that the edit should change.

    Attributes:
        prompt: What is asked.
        target: The right answer once the edit holds.
        form: `edit`, `paraphrase`, `entailed` or `composed`.
    """

    prompt: str
    target: str
    form: str = PARAPHRASE


@dataclass(frozen=True, slots=True)
class OutOfScope:
    """A prompt that the edit should leave alone.

    Attributes:
        prompt: What is asked.
        form: What makes it easy or hard, such as `same subject` or `neighbour`.
        target: What is true of it, where the data says.
    """

    prompt: str
    form: str = "other"
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Replies:
    """Replies about the topic of a sentiment edit, for its teacher-forced measures (Mitchell et al. 2022, sec. 5.1)."""

    wished: tuple[str, ...]
    opposite: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One edit and its probes.

    Attributes:
        id: Its name in reports; unique within a data set.
        edit: What to apply; None when it is already in force.
        subject: The thing the edit is about, as written in its prompt; weight editors need it.
        previous: The answer before the edit, o_c; ROME's scores compare its probability with the new target's.
        replies: Of a sentiment edit.
    """

    id: str
    edit: EditDescriptor | None = None
    in_scope: tuple[InScope, ...] = ()
    out_of_scope: tuple[OutOfScope, ...] = ()
    subject: str | None = None
    previous: str | None = None
    replies: Replies | None = None

    @property
    def probes(self) -> tuple[InScope | OutOfScope, ...]:
        """All of them, those in scope first."""
        return (*self.in_scope, *self.out_of_scope)
