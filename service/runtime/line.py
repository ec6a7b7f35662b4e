"""The line before the model: who is being answered, who waits, and how many may.

One line for all versions of the model. Belongs to one event loop; the model's thread only says who has begun.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.domain.ports import Backlog
from service.errors import QueueFull


class Place:
    """One request's place in the line.

    Attributes:
        begun: Whether the model is at it; it waits until then.
        gone: Whether nobody waits for it any more.
    """

    def __init__(self) -> None:
        self.begun = self.gone = False


class Line:
    """Counts requests, and refuses those for whom there is no room.

    Args:
        running: Most that a version of the model answers at once.
        waiting: Most that wait.
    """

    def __init__(self, *, running: int = 32, waiting: int = 256) -> None:
        self.running = running
        self._waiting = waiting
        self._places: set[Place] = set()

    def enter(self) -> Place:
        """Take a place.

        Raises:
            QueueFull: As many wait as may.
        """
        waiting = self.backlog().waiting
        if waiting >= self._waiting:
            raise QueueFull(f"{waiting} requests wait for the model, and no more may.", extra={"waiting": waiting})
        place = Place()
        self._places.add(place)
        return place

    def leave(self, place: Place) -> None:
        """Give it up; one that has been given up already stays so."""
        self._places.discard(place)

    def backlog(self) -> Backlog:
        """How many the model is at, and how many wait."""
        begun = sum(place.begun for place in self._places)
        return Backlog(running=begun, waiting=len(self._places) - begun)


def backlog_of(lines: Iterable[Line]) -> Backlog:
    """How busy those are who stand at these lines, together."""
    backlogs = [line.backlog() for line in lines]
    return Backlog(running=sum(one.running for one in backlogs), waiting=sum(one.waiting for one in backlogs))
