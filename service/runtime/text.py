"""Text as it is written: token by token, and nothing of it is ever taken back.

A character of several tokens is kept until it is whole, and what may be the beginning of a stop string until it is
known not to be one. So the pieces, put together, are the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no character yet."""


class Text:
    """The text of one answer.

    Args:
        tokenizer: Of the model that writes it.
        stop: Strings that end it; they are not part of it.

    Attributes:
        said: All of it.
        stopped: Whether a stop string has ended it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._longest = max(map(len, stop), default=0)
        self._ids: list[int] = []
        self._begin = self._read = 0  # a window: a token's text depends on those before it, though not on all
        self.said = ""
        self._taken = 0
        self.stopped = False

    def push(self, token: int) -> None:
        """Add a token, unless a stop string has ended the text."""
        self._ids.append(token)
        before, now = self._decoded(self._ids[self._begin : self._read]), self._decoded(self._ids[self._begin :])
        if not now.endswith(_UNFINISHED):
            self._begin, self._read = self._read, len(self._ids)
            self._append(now[len(before) :])

    def take(self, *, last: bool = False) -> str:
        """What has been added since the last time and will stay.

        Args:
            last: Whether no token follows, so that nothing need be kept back.
        """
        if last and self._read < len(self._ids):
            before, now = self._decoded(self._ids[self._begin : self._read]), self._decoded(self._ids[self._begin :])
            self._read = len(self._ids)
            self._append(now[len(before) :])
        until = len(self.said) - (0 if last or self.stopped else self._doubtful())
        piece, self._taken = self.said[self._taken : until], max(until, self._taken)
        return piece

    def _append(self, piece: str) -> None:
        if self.stopped or not piece:
            return
        start = max(0, len(self.said) - self._longest + 1)
        self.said += piece
        ends = [place for stop in self._stop if (place := self.said.find(stop, start)) >= 0]
        if ends:
            self.said, self.stopped = self.said[: min(ends)], True

    def _doubtful(self) -> int:
        """Characters at the end with which a stop string may begin."""
        for length in range(min(self._longest - 1, len(self.said)), 0, -1):
            if any(stop.startswith(self.said[-length:]) for stop in self._stop):
                return length
        return 0

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class Stripped:
    """Pieces of a text without the whitespace that surrounds the whole, as `str.strip` takes it away."""

    def __init__(self) -> None:
        self._kept = ""
        self._begun = False

    def push(self, piece: str) -> str:
        """What can be said of the text so far: nothing of it is whitespace at one of its ends."""
        self._kept += piece
        if not self._begun:
            self._kept = self._kept.lstrip()
            self._begun = bool(self._kept)
        said = self._kept.rstrip()
        self._kept = self._kept[len(said) :]
        return said
