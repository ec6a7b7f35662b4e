"""The census: how many edits the database holds, for whoever watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.domain.edits import EditState


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Figures of one moment.

    Attributes:
        revision: The number of the newest change.
        edits: How many are in each state; every state is there.
        vector_bytes: Of the embeddings of those in force: four for each number.
    """

    revision: int
    edits: Mapping[EditState, int]
    vector_bytes: int
