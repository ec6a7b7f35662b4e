"""A base whose passes are counted, and stop when told to: the way to see into a method at work, and to end it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from editors.model.loading import BaseModel
from editors.model.views import view


class Stopped(Exception):
    """The work was told to stop."""


@dataclass(slots=True)
class Watch:
    """What is seen of the work, and said to it, from another thread.

    Attributes:
        passes: How many times the model, or a view of it, has been run.
        stopped: Whether its next pass should end the work.
    """

    passes: int = 0
    stopped: bool = False


def watched(base: BaseModel, watch: Watch) -> BaseModel:
    """The base on a view whose every pass, and every pass of its own views, is counted and may raise `Stopped`."""

    def look(*_: object) -> None:  # a plain function, which copies of the model share
        if watch.stopped:
            raise Stopped
        watch.passes += 1

    model = view(base.model)
    model.register_forward_pre_hook(look)
    copy = replace(base, model=model)
    vars(copy)["fingerprint"] = base.fingerprint  # it has the base's tensors, which need not be read again
    return copy
