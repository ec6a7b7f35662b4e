"""A base elsewhere: an engine on the model of any OpenAI-compatible server, which SERAC needs as a black box alone.

Every wait on that server has an end, and so has what it may send. Not covered: what needs the base's weights or tokens
(bakes, scores under teacher forcing, the room that an edit takes), for which there is only the server's own word.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import httpx
import structlog
from pydantic_core import from_json

from service.domain.generations import Sampling
from service.errors import (
    ErrataError,
    ShuttingDown,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from service.runtime.completions import Completion, Pieces, Prompt
from service.runtime.line import Line
from service.runtime.upstream_answers import bounded, pieces, question, whole
from service.runtime.upstream_refusals import MOST_BYTES, refusal

SECONDS_BETWEEN_LOOKS = 5.0
_IDLE_SECONDS = 3.0
"""How long a connection is kept for the next request: less than servers keep theirs, 5 s and more."""
_CATALOGUE_TOKENS = 256
"""How large a list of models may be, as an answer of so many tokens."""

_ENDED = re.compile(r"disconnected|closed connection")
"""In what httpx says of a connection that ended too early, and not of one that carries something else than HTTP."""

_log = structlog.get_logger(__name__)


class UpstreamEngine:
    """Implements `Engine` on a server elsewhere. Belongs to one event loop; to be entered before it is asked.

    Args:
        url: Up to and with its `/v1`.
        model: The model's name there.
        key: Sent as a bearer token; none when empty.
        timeout_seconds: Longest wait for an answer, or for the next piece of one.
        connect_seconds: Longest wait for a connection.
        line: In which requests wait; as many as it runs at once, the server is asked at once.

    Attributes:
        context_length: Most tokens that prompt and answer may have together; None while the server has not said.
        listed: Every model that it last said to have, its LoRA adapters among them.
        problem: Why it does not answer now; None when it does.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        key: str = "",
        timeout_seconds: float = 60.0,
        connect_seconds: float = 5.0,
        line: Line | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.model = model
        self.line = line or Line()
        self.context_length: int | None = None
        self.listed: frozenset[str] = frozenset()
        self.problem: str | None = "it has not been asked yet"
        self._key = key
        self._seconds = timeout_seconds
        self._connect_seconds = connect_seconds
        self._turns = asyncio.Semaphore(self.line.running)
        self._streams: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx.Timeout(None, connect=connect_seconds),  # `_patience` has an eye on all else
            limits=httpx.Limits(
                max_connections=self.line.running + 1,  # one to look how it is
                max_keepalive_connections=self.line.running,
                keepalive_expiry=_IDLE_SECONDS,
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up what is being written, and close the connections."""
        for task in self._streams:
            task.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        await self._client.aclose()

    @property
    def is_here(self) -> bool:
        """It is not."""
        return False

    @property
    def converses(self) -> bool:
        """Whether it can be asked with a conversation; the server says so itself where it cannot."""
        return True

    async def write(self, prompt: Prompt, sampling: Sampling, *, model: str | None = None) -> Completion:
        """Answer a prompt, with another of its models where one is named; see `Engine`.

        Raises:
            PromptTooLong, NoChatTemplate, UpstreamDeclined: The server does not take the prompt.
            QueueFull, UpstreamBusy: Too many wait already, here or there.
            UpstreamUnavailable, UpstreamTimeout: The server does not answer, or not in time.
            UpstreamRefused, UpstreamInvalid: It is not the server that it should be.
        """
        async with self._patience(), self._asked(model, prompt, sampling, stream=False) as chunks:
            return await whole(chunks)

    async def stream(self, prompt: Prompt, sampling: Sampling, *, model: str | None = None) -> Pieces:
        """Answer a prompt piece by piece; see `Engine` and `write`."""
        answer = _Answer()
        answer.writing = self.keep(self._pass_on(model, prompt, sampling, answer))
        try:
            await answer.begun()
        except BaseException:
            answer.close()
            raise
        return answer

    async def warm_up(self) -> None:
        """See how the server is; a prompt might cost money."""
        await self.look()

    async def look(self) -> None:
        """See whether the server is there and lets us in, and how much its model reads."""
        try:
            async with self._patience(self._connect_seconds), self._response("GET", "/models") as response:
                listed = [chunk async for chunk in bounded(response.aiter_raw(), tokens=_CATALOGUE_TOKENS)]
        except (UpstreamUnavailable, UpstreamTimeout, UpstreamRefused, UpstreamInvalid) as error:
            self._note(error.detail)
            return
        except ErrataError:
            listed = []  # it answers, and has its reasons to list nothing now
        self._note(None)
        lengths = _context_lengths(b"".join(listed))
        self.listed = frozenset(lengths)
        self.context_length = lengths.get(self.model) or self.context_length

    async def do(self, path: str, body: dict[str, Any]) -> None:
        """Have the server do what is no answer; raises as `write`."""
        async with self._patience(), self._response("POST", path, body) as response:
            async for _ in bounded(response.aiter_raw(), tokens=0):
                pass

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let something go on until it is done, or the engine is left."""
        task = asyncio.create_task(work)
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)
        return task

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            await self.look()

    async def _pass_on(self, model: str | None, prompt: Prompt, sampling: Sampling, answer: _Answer) -> None:
        """Tell an answer piece by piece."""
        try:
            async with self._patience() as patience, self._asked(model, prompt, sampling, stream=True) as chunks:
                answer.tell(None)
                async for piece in pieces(chunks):
                    patience.reschedule(asyncio.get_running_loop().time() + self._seconds)
                    answer.tell(piece)
        except asyncio.CancelledError:
            answer.tell(ShuttingDown("The service is stopping."))  # or the caller has gone, and nobody listens
            raise
        except Exception as error:
            answer.tell(error)

    @asynccontextmanager
    async def _patience(self, seconds: float | None = None) -> AsyncIterator[asyncio.Timeout]:
        """As long as something may take, from waiting for its turn to its end.

        Raises:
            UpstreamTimeout: It takes longer.
        """
        seconds = seconds or self._seconds
        try:
            async with asyncio.timeout(seconds) as timeout:
                yield timeout
        except TimeoutError:
            raise UpstreamTimeout(f"The base model's server did not answer within {seconds:g} s.") from None

    @asynccontextmanager
    async def _asked(
        self, model: str | None, prompt: Prompt, sampling: Sampling, *, stream: bool
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an answer, when there is a turn for it; leaving before their end gives the rest up."""
        place = self.line.enter()
        try:
            async with self._turns:
                place.begun = True
                path, body = question(model or self.model, prompt, sampling, stream=stream)
                async with self._response("POST", path, body) as response:
                    self._note(None)
                    most = min(sampling.max_new_tokens, self.context_length or sampling.max_new_tokens)
                    yield bounded(response.aiter_raw(), tokens=most)
        finally:
            self.line.leave(place)

    @asynccontextmanager
    async def _response(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[httpx.Response]:
        with self._translated():
            async with self._client.stream(method, self.url + path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    model = self.model if body is None else body.get("model")
                    raise refusal(response, await _beginning(response), model=model, key=self._key)
                yield response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the errors of the connection into the service's; none of their words hold the key."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            why = str(error).rstrip(".") or f"no connection within {self._connect_seconds:g} s"
            unreachable = UpstreamUnavailable(f"The base model's server cannot be reached: {why}.")
            self._note(unreachable.detail)
            raise unreachable from None
        except httpx.TransportError as error:  # whose words may quote what was sent
            if isinstance(error, httpx.RemoteProtocolError) and not _ENDED.search(str(error)):
                raise UpstreamInvalid("What should be the base model's server does not speak HTTP.") from None
            raise UpstreamUnavailable("The base model's server broke off its answer.") from None

    def _note(self, problem: str | None) -> None:
        if problem is not None and self.problem is None:
            _log.error("the base elsewhere does not answer", problem=problem)
        elif problem is None and self.problem is not None:
            _log.info("the base elsewhere answers", url=self.url, model=self.model)
        self.problem = problem


class _Answer:
    """One streamed answer: implements `Pieces`."""

    def __init__(self) -> None:
        self.writing: asyncio.Task[None] | None = None
        self._ended = False
        self._news: asyncio.Queue[str | Completion | Exception | None] = asyncio.Queue()

    def tell(self, news: str | Completion | Exception | None) -> None:
        """Take news of it; first None, which says that it is being written."""
        self._ended = isinstance(news, Completion)
        self._news.put_nowait(news)

    async def begun(self) -> None:
        """Wait until it is being written; raises what stops it before."""
        if isinstance(news := await self._news.get(), Exception):
            raise news

    async def __aiter__(self) -> AsyncIterator[str | Completion]:
        while True:
            news = await self._news.get()
            if isinstance(news, Exception):
                raise news
            assert news is not None, "an answer begins once"
            yield news
            if isinstance(news, Completion):
                return

    def close(self) -> None:
        """Give up what has not been written yet, here and on the server."""
        if self.writing is not None and not self._ended:
            self.writing.cancel()


async def _beginning(response: httpx.Response) -> bytes:
    read = bytearray()
    async for chunk in response.aiter_raw():
        read += chunk
        if len(read) > MOST_BYTES:
            break
    return bytes(read[:MOST_BYTES])


def _context_lengths(listed: bytes) -> dict[str, int | None]:
    """What a list of models says of each, where the server is one that does (vLLM's `max_model_len`)."""
    try:
        lengths = {str(entry["id"]): entry.get("max_model_len") for entry in from_json(listed)["data"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {model: found if isinstance(found, int) and found > 0 else None for model, found in lengths.items()}
