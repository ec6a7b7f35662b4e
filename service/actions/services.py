"""What every action works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.domain.answers import AnswerCache, NoAnswers
from service.domain.artifacts import Artifacts
from service.domain.bake_plans import Baker
from service.domain.keys import Keyring, NoKeys
from service.domain.ports import Runtime, Store


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms behind the actions.

    Attributes:
        store: The truth.
        runtime: The model and the live memory.
        baker: Makes versions.
        artifacts: Keeps what they are made of.
        keyring: Who may do what.
        answers: What keeps answers, to be looked at.
    """

    store: Store
    runtime: Runtime
    baker: Baker
    artifacts: Artifacts
    keyring: Keyring = field(default_factory=NoKeys)
    answers: AnswerCache = field(default_factory=NoAnswers)
