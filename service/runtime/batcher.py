"""The batcher: answers many requests with one model at once, on the model's thread.

A turn on the thread reads the prompts that have come and writes a token of every answer; what else is queued there has
its turn before the next. When one fails, its requests are refused and the batch is made anew; until a trial has gone
well, further requests are refused as well.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from editors.model.generation import TOKENS_AT_ONCE, end_tokens
from service.domain.generations import FinishReason, Usage
from service.errors import EngineFailed, ErrataError
from service.runtime.batch import Batch, Continuation
from service.runtime.completions import Completion
from service.runtime.line import Line, Place
from service.runtime.owner import Owner
from service.runtime.text import Text

TRIAL_SECONDS = 1.0
"""Between two trials of a model that fails."""
_RUNNING_FOR_A_TURN = 8
"""Reading prompts costs all that are running about a turn: for each so many, a turn lies between two readings."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class Request(Continuation):
    """A sequence that somebody waits for.

    Attributes:
        text: What it says so far; None where it is only decoded at the end.
        piecewise: Whether each piece is told as it comes.
        tell: Told of pieces, then of the whole, or of what went wrong; on the model's thread.
        place: In the line, which says whether anybody still waits.
        first_at: When its first token was there.
    """

    text: Text | None
    piecewise: bool
    tell: Callable[[str | Completion | ErrataError], None]
    place: Place
    first_at: float | None = None


class Batcher:
    """Answers requests in turns.

    Args:
        model: It is only read.
        tokenizer: Its own.
        owner: Its thread; every method but `problem` runs there.
        line: Says how many run at once.

    Attributes:
        problem: Why it does not answer now; None when it does.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, owner: Owner, line: Line) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._owner = owner
        self._line = line
        self._ends = frozenset(end_tokens(model))
        self._batch = Batch[Request](model)
        self._waiting: deque[Request] = deque()
        self._joining: Sequence[Request] = ()
        self._turns = 0
        self._turning = False
        self.problem: str | None = None

    def add(self, request: Request) -> None:
        """Answer a request in the next turns.

        Raises:
            EngineFailed: The model fails.
        """
        if self.problem is not None:
            raise EngineFailed(self.problem)
        self._waiting.append(request)
        if not self._turning:
            self._turning = True
            self._owner.post(self._turn, dropped=self._refuse)

    def _turn(self) -> None:
        try:
            self._let_go()
            self._read()
            if self._batch.running:
                self._batch.step()
                self._heed(list(self._batch.running))
        except Exception as error:  # whatever it is, those who wait must hear of it
            _log.exception("the model failed; its batch is made anew")
            self._fail(error)
        self._turning = bool(self._batch.running or self._waiting)
        if self._turning:
            self._owner.post(self._turn, dropped=self._refuse)

    def _let_go(self) -> None:
        """Those for whom nobody waits."""
        for request in [request for request in self._batch.running if request.place.gone]:
            self._batch.leave(request)

    def _read(self) -> None:
        """Take in those who wait, when it is time."""
        self._turns += 1
        if self._turns <= len(self._batch.running) // _RUNNING_FOR_A_TURN:
            return
        self._joining = self._next()
        if self._joining:
            self._turns = 0
            for request in self._joining:
                request.place.begun = True
            self._batch.join(self._joining)
            self._heed(self._joining)
            self._joining = ()

    def _next(self) -> list[Request]:
        """As many of those who wait as there is room for, in their order; one at least where nothing runs."""
        together: list[Request] = []
        longest = max((request.room for request in self._batch.running), default=0)
        while self._waiting:
            first, count = self._waiting[0], len(self._batch.running) + len(together)
            longest = max(longest, first.room)
            full = count >= self._line.running or (count + 1) * longest > TOKENS_AT_ONCE
            if count and full and not first.place.gone:
                break
            self._waiting.popleft()
            if not first.place.gone:
                together.append(first)
        return together

    def _heed(self, requests: Sequence[Request]) -> None:
        """Say what has just been written, and let those go that have come to their end."""
        now = time.perf_counter()
        for request in requests:
            request.first_at = request.first_at or now
            token = request.written[-1]
            if request.text is not None:
                request.text.push(token)
            ended = token in self._ends or (request.text is not None and request.text.stopped)
            if ended or len(request.written) >= request.most:
                self._batch.leave(request)
                self._say_last(request, ended=ended)
            elif request.piecewise and request.text is not None and (piece := request.text.take()):
                request.tell(piece)

    def _say_last(self, request: Request, *, ended: bool) -> None:
        if request.text is None:
            text = str(self._tokenizer.decode(request.written, skip_special_tokens=True))
        else:
            piece, text = request.text.take(last=True), request.text.said
            ended = ended or request.text.stopped
            if request.piecewise and piece:
                request.tell(piece)
        usage = Usage(prompt_tokens=len(request.ids), completion_tokens=len(request.written))
        reason = FinishReason.STOP if ended else FinishReason.LENGTH
        request.tell(Completion(text, usage, reason, request.first_at))

    def _fail(self, error: Exception) -> None:
        self.problem = f"The model failed: {type(error).__name__}."
        self._refuse(EngineFailed(self.problem))
        self._post_trial()

    def _refuse(self, error: ErrataError) -> None:
        """Everybody; the batch is empty afterwards."""
        for request in {*self._waiting, *self._joining, *self._batch.running}:
            request.tell(error)
        self._waiting.clear()
        self._joining = ()
        self._batch = Batch(self._model)

    def _post_trial(self) -> None:
        self._owner.post(self._try, dropped=lambda _: None)

    def _try(self) -> None:
        """Answer something, to see whether the model does."""
        try:
            Batch[Continuation](self._model).join([Continuation(ids=[0], most=1)])
        except Exception:
            _log.exception("the model still fails")
            later = threading.Timer(TRIAL_SECONDS, self._post_trial)
            later.daemon = True
            later.start()
        else:
            _log.info("the model answers again")
            self.problem = None
