"""What every action works with."""

from __future__ import annotations

from dataclasses import dataclass

from service.domain.artifacts import Artifacts
from service.domain.bake_plans import Baker
from service.domain.ports import Runtime, Store


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms behind the actions.

    Attributes:
        store: The truth.
        runtime: The model and the live memory.
        baker: Makes versions.
        artifacts: Keeps what they are made of.
    """

    store: Store
    runtime: Runtime
    baker: Baker
    artifacts: Artifacts
