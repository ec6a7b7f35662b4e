"""The live memory: the edits in force, at a revision, ready to decide.

Not thread-safe; its owner is the memory's thread. Everything here can be rebuilt from the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from editors.serac.decide import Candidate as ScopeCandidate
from editors.serac.decide import ScopeDecision, decide
from editors.serac.encoder import SentenceEncoder
from editors.serac.memory import EditMemory, MemoryEntry
from editors.serac.scope import ScopeClassifier
from service.domain.edits import Descriptor, Edit, EditState, Embeddings, StoredEdit
from service.domain.matches import Candidate, Decision, Match
from service.runtime.descriptors import edit_descriptor


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
    """

    def __init__(
        self, encoder: SentenceEncoder, classifier: ScopeClassifier, *, candidates: int, threshold: float | None
    ) -> None:
        self._encoder = encoder
        self._classifier = classifier
        self._memory = EditMemory(encoder.width)
        self._edits: dict[int, Edit] = {}
        self._expiries: dict[int, datetime] = {}
        self._candidates = candidates
        self._threshold = classifier.threshold if threshold is None else threshold
        self.revision = 0

    def __len__(self) -> int:
        return len(self._edits)

    def embed(self, descriptor: Descriptor) -> Embeddings:
        """The embeddings of a descriptor's texts."""
        texts = (edit_descriptor(descriptor).text, *descriptor.texts[1:])
        vectors = self._encoder.encode(texts)
        return Embeddings(encoder=self._encoder.fingerprint, vectors=vectors.astype("<f4").tobytes())

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
            self._edits[number] = stored.edit
            if stored.edit.expires_at is not None:
                self._expiries[number] = stored.edit.expires_at
        self.revision = revision

    def decide(self, prompts: Sequence[str]) -> list[Verdict]:
        """Which edit answers each prompt; one revision decides for all."""
        now = datetime.now(UTC)
        expired = {number for number, at in self._expiries.items() if at <= now}
        decisions = decide(
            self._memory,
            self._classifier,
            prompts,
            self._encoder.encode(prompts),
            k=self._candidates,
            default_threshold=self._threshold,
            skip=expired.__contains__ if expired else None,
        )
        return [self._verdict(decision) for decision in decisions]

    def figures(self) -> dict[str, str | int | float]:
        """What is worth knowing about it."""
        return {
            "encoder": self._encoder.fingerprint,
            "width": self._encoder.width,
            "rows": self._memory.rows,
            "threshold": self._threshold,
        }

    def _entry(self, stored: StoredEdit) -> MemoryEntry:
        kept = stored.edit.descriptor
        embeddings = self.embed(kept) if self.is_stale(stored) else stored.embeddings
        descriptor = edit_descriptor(kept)
        return MemoryEntry(
            descriptor=descriptor,
            in_scope=(descriptor.text, *kept.scope.in_scope),
            out_of_scope=kept.scope.out_of_scope,
            vectors=_matrix(embeddings.vectors, self._encoder.width),
            threshold=kept.scope.threshold,
        )

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


def _matrix(vectors: bytes, width: int) -> NDArray[np.float32]:
    return np.frombuffer(vectors, dtype="<f4").reshape(-1, width).astype(np.float32, copy=False)
