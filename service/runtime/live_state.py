"""What is in force here: the memory and the versions that are served, always of one revision.

Its owner is the memory's thread, on which both move together; what `moment` holds may be read anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.domain.edits import StoredEdit
from service.errors import VersionUnavailable
from service.runtime.live_memory import LiveMemory, Verdict
from service.runtime.versions import LiveServing, LiveVersion


@dataclass(frozen=True, slots=True)
class Moment:
    """What is in force at a revision, but for the edits themselves.

    Attributes:
        baked: How many edits in force the active version answers from its weights.
    """

    revision: int
    serving: LiveServing
    baked: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt to decide for.

    Attributes:
        key: Chooses between the active version and the canary; None asks the active one.
        version: The version that answers, where the caller named one.
    """

    prompt: str
    key: str | None = None
    version: LiveVersion | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """The version that answers a prompt, and which of the edits that are not in it does so instead, if any."""

    version: LiveVersion
    verdict: Verdict


class LiveState:
    """The memory, and what is served.

    Args:
        memory: Empty.
        serving: What is served until something else is installed.
    """

    def __init__(self, memory: LiveMemory, serving: LiveServing) -> None:
        self.memory = memory
        self.moment = Moment(memory.revision, serving)

    def install(self, changed: Iterable[StoredEdit], *, revision: int, serving: LiveServing) -> None:
        """Bring these edits, and what is served, to their state at `revision`."""
        self.memory.install(changed, revision=revision)
        active = serving.versions.get(serving.serving.active)
        baked = len(self.memory.contained(active.edits)) if active else 0
        self.moment = Moment(revision, serving, baked)

    def pinned(self) -> tuple[LiveMemory, LiveVersion]:
        """The memory as it is now, and the active version.

        Raises:
            VersionUnavailable: It could not be loaded.
        """
        return self.memory.pinned(), self.moment.serving.active

    def decide(self, questions: Sequence[Question]) -> list[Decided | VersionUnavailable]:
        """What answers each question; one revision decides for all. An error is that question's own."""
        chosen = [self._version(question) for question in questions]
        decided: list[Decided | VersionUnavailable | None] = [
            one if isinstance(one, VersionUnavailable) else None for one in chosen
        ]
        for version in {id(one): one for one in chosen if isinstance(one, LiveVersion)}.values():
            places = [place for place, one in enumerate(chosen) if one is version]
            verdicts = self.memory.decide([questions[place].prompt for place in places], without=version.edits)
            for place, verdict in zip(places, verdicts, strict=True):
                decided[place] = Decided(version, verdict)
        return [one for one in decided if one is not None]

    def _version(self, question: Question) -> LiveVersion | VersionUnavailable:
        if question.version is not None:
            return question.version
        serving = self.moment.serving
        try:
            return serving.active if question.key is None else serving.version_for(question.key)
        except VersionUnavailable as error:
            return error
