"""What every action works with."""

from __future__ import annotations

from dataclasses import dataclass

from service.domain.ports import Runtime, Store


@dataclass(frozen=True, slots=True)
class Services:
    """The two rooms behind the actions."""

    store: Store
    runtime: Runtime
