"""The live memory: the edits in force, at a revision, ready to decide.

Not thread-safe; its owner is the memory's thread. Everything here can be rebuilt from the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import structlog
from numpy.typing import NDArray

from editors.serac.decide import Candidate as ScopeCandidate
from editors.serac.decide import ScopeDecision, decide
from editors.serac.encoder import SentenceEncoder
from editors.serac.memory import EditMemory, EditTexts, MemoryEntry
from editors.serac.passages import embed_queries
from editors.serac.scope import ScopeClassifier
from service.domain.edits import Descriptor, Edit, EditState, Embeddings, StoredEdit
from service.domain.matches import Candidate, Decision, Match
from service.domain.serving import is_contained
from service.domain.versions import BakedEdit
from service.runtime.descriptors import edit_descriptor
from service.runtime.snapshot import MemoryState, SavedMemory, digest

_log = structlog.get_logger(__name__)


ONE_MORE = f"e{2**62}"
"""An id that sorts after every other's, as a new edit's does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A match, and the edit that answers if one does."""

    match: Match
    edit: Edit | None


class LiveMemory:
    """Edits, their index, and the rule that chooses among them.

    Args:
        encoder: Embeds prompts and edits.
        classifier: Judges whether a prompt is in an edit's scope.
        candidates: Edits retrieved for each prompt.
        threshold: Beta at or above which an edit answers; the classifier's own when None.
        builder: Where the indexes of a large memory are built; see `EditMemory`.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        classifier: ScopeClassifier,
        *,
        candidates: int,
        threshold: float | None,
        builder: Executor | None = None,
    ) -> None:
        self._encoder = encoder
        self._classifier = classifier
        self._builder = builder
        self._memory = EditMemory(encoder.width, builder=builder)
        self._edits: dict[int, Edit] = {}
        self._expiries: dict[int, datetime] = {}
        self._candidates = candidates
        self._threshold = classifier.threshold if threshold is None else threshold
        self.revision = 0

    def __len__(self) -> int:
        return len(self._edits)

    def in_force(self) -> tuple[Edit, ...]:
        """The edits in force, oldest first."""
        expired = self._expired()
        return tuple(edit for number, edit in sorted(self._edits.items()) if number not in expired)

    def embed(self, descriptor: Descriptor) -> Embeddings:
        """The embeddings of a descriptor's texts."""
        (embeddings,) = self.embed_many((descriptor,))
        return embeddings

    def embed_many(self, descriptors: Sequence[Descriptor]) -> list[Embeddings]:
        """The embeddings of each descriptor's texts."""
        texts = [(edit_descriptor(descriptor).text, *descriptor.texts[1:]) for descriptor in descriptors]
        vectors = self._encoder.encode([text for own in texts for text in own]).astype("<f4")
        ends = np.cumsum([len(own) for own in texts])
        parts = np.split(vectors, ends[:-1]) if texts else []
        return [Embeddings(encoder=self._encoder.fingerprint, vectors=part.tobytes()) for part in parts]

    def pinned(self) -> LiveMemory:
        """The edits in force now, in a memory that later changes do not reach and in which nothing expires."""
        pinned = self._empty()
        pinned._memory, pinned._edits, pinned.revision = self._memory.copy(), dict(self._edits), self.revision
        for number in self._expired():
            pinned._memory.remove(number)
            del pinned._edits[number]
        return pinned

    def holding(self, edits: Sequence[tuple[Descriptor, Embeddings]]) -> LiveMemory:
        """A memory of its own that holds these edits and nothing else, and decides by the same rule."""
        other = self._empty()
        held = [_unkept(f"e{number}", *edit) for number, edit in enumerate(edits, start=1)]
        other.install(held, revision=self.revision)
        return other

    def with_one_more(
        self, descriptor: Descriptor, embeddings: Embeddings, *, without: frozenset[str] = frozenset()
    ) -> LiveMemory:
        """A memory of its own that holds the same edits, without some, and one more, which is `ONE_MORE`."""
        other = self.pinned()
        for number in (int(edit_id[1:]) for edit_id in without):
            other._memory.remove(number)
            other._edits.pop(number, None)
        other.install([_unkept(ONE_MORE, descriptor, embeddings)], revision=self.revision)
        return other

    def is_stale(self, stored: StoredEdit) -> bool:
        """Whether the embeddings come from another encoder."""
        return stored.embeddings.encoder != self._encoder.fingerprint

    def install(self, changed: Iterable[StoredEdit], *, revision: int) -> None:
        """Bring these edits to their present state, which is the state at `revision`."""
        for stored in changed:
            number = int(stored.edit.id[1:])
            self._expiries.pop(number, None)
            if stored.edit.state is not EditState.ACTIVE:
                self._memory.remove(number)
                self._edits.pop(number, None)
                continue
            self._memory.put(number, self._entry(stored))
            self._hold(number, stored.edit)
        self.revision = revision

    @property
    def encoder(self) -> str:
        """The encoder's fingerprint."""
        return self._encoder.fingerprint

    def state(self) -> MemoryState:
        """The memory as it is now, for a snapshot."""
        return MemoryState(memory=self._memory.copy(), revision=self.revision, encoder=self.encoder)

    def restore(self, saved: SavedMemory, edits: Iterable[Edit]) -> tuple[str, ...]:
        """Begin with what was saved of these edits; the ids of those that it has no embeddings of.

        The memory must be empty. Call `install` with those that are lacking, and with the revision of them all.
        """
        kept = {int(edit.id[1:]): edit for edit in edits}
        texts = {number: _texts(edit.descriptor) for number, edit in kept.items()}
        known = {number: own for number, own in texts.items() if saved.digests.get(number) == digest(own)}
        try:
            self._memory = EditMemory.restored(saved.arrays, known, self._encoder.width, builder=self._builder)
        except (ValueError, KeyError, RuntimeError) as error:
            _log.warning("the memory's snapshot does not hold together; starting without it", error=str(error))
            return tuple(edit.id for edit in kept.values())
        for number in known:
            self._hold(number, kept[number])
        return tuple(edit.id for number, edit in kept.items() if number not in known)

    def contained(self, baked: frozenset[BakedEdit]) -> set[int]:
        """The numbers of the edits that a version with these in its weights answers from them."""
        here = ((number, self._edits.get(number)) for number in (int(one.id[1:]) for one in baked))
        return {number for number, edit in here if edit is not None and is_contained(edit, baked)}

    def decide(self, prompts: Sequence[str], *, without: frozenset[BakedEdit] = frozenset()) -> list[Verdict]:
        """Which edit answers each prompt; one revision decides for all. Edits of `without` are left to the weights."""
        absent = self._expired() | self.contained(without)
        decisions = decide(
            self._memory,
            self._classifier,
            prompts,
            embed_queries(self._encoder.encode, prompts),
            k=self._candidates,
            default_threshold=self._threshold,
            skip=absent.__contains__ if absent else None,
        )
        return [self._verdict(decision) for decision in decisions]

    def figures(self) -> dict[str, str | int | float]:
        """What is worth knowing about it."""
        return {
            "encoder": self.encoder,
            "width": self._encoder.width,
            "rows": self._memory.rows,
            "threshold": self._threshold,
        }

    def _empty(self) -> LiveMemory:
        return LiveMemory(self._encoder, self._classifier, candidates=self._candidates, threshold=self._threshold)

    def _expired(self) -> set[int]:
        now = datetime.now(UTC)
        return {number for number, at in self._expiries.items() if at <= now}

    def _entry(self, stored: StoredEdit) -> MemoryEntry:
        kept = stored.edit.descriptor
        embeddings = self.embed(kept) if self.is_stale(stored) else stored.embeddings
        texts = _texts(kept)
        return MemoryEntry(
            descriptor=texts.descriptor,
            in_scope=texts.in_scope,
            out_of_scope=texts.out_of_scope,
            threshold=texts.threshold,
            vectors=_matrix(embeddings.vectors, self._encoder.width),
        )

    def _hold(self, number: int, edit: Edit) -> None:
        self._edits[number] = edit
        if edit.expires_at is not None:
            self._expiries[number] = edit.expires_at

    def _verdict(self, decision: ScopeDecision) -> Verdict:
        answer = decision.answer
        # The edit that answers leads; otherwise the one that came nearest says why it did not.
        leading = answer or (decision.candidates[0] if decision.candidates else None)
        match = Match(
            edit_id=None if answer is None else f"e{answer.edit_id}",
            beta=None if leading is None else leading.beta,
            threshold=None if leading is None else leading.threshold,
            decision=_reason(answer, leading),
            candidates=tuple(_candidate(candidate) for candidate in decision.candidates),
            revision=self.revision,
        )
        return Verdict(match, None if answer is None else self._edits[answer.edit_id])


def _unkept(edit_id: str, descriptor: Descriptor, embeddings: Embeddings) -> StoredEdit:
    """An active edit that is in no store."""
    now = datetime.now(UTC)
    edit = Edit(id=edit_id, revision=0, descriptor=descriptor, state=EditState.ACTIVE, created_at=now, updated_at=now)
    return StoredEdit(edit=edit, embeddings=embeddings)


def _reason(answer: ScopeCandidate | None, leading: ScopeCandidate | None) -> Decision:
    if answer is not None:
        return Decision.IN_SCOPE
    if leading is None:
        return Decision.NO_EDITS
    excluded = leading.excluded and leading.beta >= leading.threshold
    return Decision.EXCLUDED if excluded else Decision.BELOW_THRESHOLD


def _candidate(candidate: ScopeCandidate) -> Candidate:
    return Candidate(
        edit_id=f"e{candidate.edit_id}",
        beta=candidate.beta,
        threshold=candidate.threshold,
        similarity=candidate.similarity,
        matched_text=candidate.matched_text,
        excluded=candidate.excluded,
    )


def _texts(kept: Descriptor) -> EditTexts:
    descriptor = edit_descriptor(kept)
    return EditTexts(
        descriptor=descriptor,
        in_scope=(descriptor.text, *kept.scope.in_scope),
        out_of_scope=kept.scope.out_of_scope,
        threshold=kept.scope.threshold,
    )


def _matrix(vectors: bytes, width: int) -> NDArray[np.float32]:
    return np.frombuffer(vectors, dtype="<f4").reshape(-1, width).astype(np.float32, copy=False)
