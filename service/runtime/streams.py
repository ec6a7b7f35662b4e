"""From what a model writes to what a caller is told: the answer, and where it comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from service.domain.edits import Edit
from service.domain.generations import Generation, Head, Source, Stream
from service.runtime.completions import Completion, Pieces
from service.runtime.live_state import Decided
from service.runtime.text import Stripped
from service.runtime.versions import LiveVersion


@dataclass(frozen=True, slots=True)
class Chosen:
    """What answers a request, and keeps answering it to its end.

    Attributes:
        version: Answers where no edit does.
        revision: Of the memory that decided.
        beta: The highest of any edit; None when none was considered.
    """

    version: LiveVersion
    revision: int
    beta: float | None = None
    edit: Edit | None = None

    @property
    def head(self) -> Head:
        """In the domain's words."""
        return Head(
            source=Source.BASE if self.edit is None else Source.EDIT,
            edit_id=None if self.edit is None else self.edit.id,
            beta=self.beta,
            version=self.version.id,
            revision=self.revision,
        )


def chosen_by(decided: Decided) -> Chosen:
    """What a decision about scope chooses."""
    match = decided.verdict.match
    return Chosen(decided.version, match.revision, match.beta, decided.verdict.edit)


def generation_of(chosen: Chosen, completion: Completion, *, began: float, stripped: bool) -> Generation:
    """The answer, to a request that came at `began` by `time.perf_counter`."""
    return Generation(
        **asdict(chosen.head),
        text=completion.text.strip() if stripped else completion.text,
        usage=completion.usage,
        finish_reason=completion.finish_reason,
        # Who joined others that wait for the same answer may have come after its first token.
        first_seconds=None if completion.first_at is None else max(0.0, completion.first_at - began),
    )


def stream_of(chosen: Chosen, pieces: Pieces, *, began: float, stripped: bool) -> Stream:
    """The answer as it is written; its pieces are those of `generation_of`'s text."""

    async def parts() -> AsyncIterator[str | Generation]:
        own = Stripped()
        async for piece in pieces:
            if isinstance(piece, Completion):
                yield generation_of(chosen, piece, began=began, stripped=stripped)
            elif said := own.push(piece) if stripped else piece:
                yield said

    return Stream(head=chosen.head, parts=parts(), close=pieces.close)
