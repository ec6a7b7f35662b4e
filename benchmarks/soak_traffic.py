"""Everything that a service is asked at once in `benchmarks.soak`, and what each answer must be."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from service.cli.load import events

STANDING = 20
"""Edits that are in force from the beginning to the end."""
OPERATORS = 2
_LONG = {"max_new_tokens": 200, "temperature": 2.0}
_FRAMES = (
    "Who is the mayor of the town of {}?",
    "Which river flows through the town of {}?",
    "What is the anthem of the island of {}?",
    "Who painted the portrait of Count {}?",
    "What do the people of {} eat on Sundays?",
)
_SYLLABLES = ("ba", "do", "fi", "gu", "ka", "lo", "mi", "nu", "po", "ra", "se", "tu")


@dataclass(frozen=True, slots=True)
class Known:
    """A prompt that no edit is about, how long its answer may be, and what the engine alone answers."""

    prompt: str
    max_new_tokens: int
    text: str


@dataclass(slots=True)
class Tally:
    """What came of it; times in seconds.

    Attributes:
        sent: Requests, by what was asked.
        answered: Those of them that were answered.
        refused: Those that were answered with 429 and Retry-After.
        latencies: Of answers, from when each was due.
        firsts: Of streamed answers, likewise to the first piece.
        wrong: What should not be, in words.
        by_handler: Requests, as the service counts them.
    """

    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    by_handler: Counter[tuple[str, str]] = field(default_factory=Counter)


class Traffic:
    """Asks one service.

    Args:
        client: Of it.
        known: Prompts that no edit is about.
        seed: Draws all that is asked.
        pause: Seconds that an operator waits after each deed, on average.

    Attributes:
        tally: Replaced by whoever wants to count anew.
        stopping: Set when operators are to finish what they are at.
    """

    def __init__(self, client: httpx.AsyncClient, known: Sequence[Known], *, seed: int, pause: float = 0.5) -> None:
        self.tally = Tally()
        self.stopping = asyncio.Event()
        self._client = client
        self._known = known
        self._random = Random(seed)
        self._pause_seconds = pause
        self._standing: list[dict[str, Any]] = []
        self._living: dict[str, str] = {}
        self._ended: dict[str, tuple[str, float]] = {}
        self._made = 0
        self._kinds: dict[Callable[[float], Awaitable[None]], int] = {
            self.out_of_scope: 7,
            self.streamed: 4,
            self.chat: 3,
            self.in_scope: 3,
            self.retracted: 3,
            self.sampled: 3,
            self.long: 1,
            self.match: 1,
            self.list_: 1,
        }

    async def prepare(self) -> None:
        """Post the edits that stand."""
        self._standing = [await self._post() for _ in range(STANDING)]

    async def anything(self, due: float) -> None:
        """Ask something; what came of it is in the tally. `due` is by the clock of `time.perf_counter`."""
        kind = self._random.choices([*self._kinds], weights=[*self._kinds.values()])[0]
        with self._counted(kind.__name__.rstrip("_"), due):
            await kind(due)

    async def operate(self) -> None:
        """Post, change and retract edits one after another, and ask after each deed, until `stopping` is set."""
        while not self.stopping.is_set():
            with self._counted("edits", time.perf_counter()):
                await self._lead_an_edit()

    async def out_of_scope(self, _: float) -> None:
        """A greedy answer that no edit covers."""
        one = self._random.choice(self._known)
        body = {"prompt": one.prompt, "max_new_tokens": one.max_new_tokens}
        answer = await self._json("POST", "/generate", json=body)
        self._hold(answer["text"], one.text.strip(), one.prompt)

    async def streamed(self, due: float) -> None:
        """The same, piece by piece."""
        await self.compare(self._random.choice(self._known), due)

    async def compare(self, one: Known, due: float) -> None:
        """Ask for an answer piece by piece, and hold it to what the engine alone gives."""
        pieces, end = await self._stream({"prompt": one.prompt, "max_new_tokens": one.max_new_tokens}, due)
        self._hold(end["text"], one.text.strip(), one.prompt)
        self._hold(pieces, end["text"], one.prompt)

    async def chat(self, _: float) -> None:
        """The same by OpenAI's API."""
        one = self._random.choice(self._known)
        messages = [{"role": "user", "content": one.prompt}]
        body = {"model": "active", "messages": messages, "max_tokens": one.max_new_tokens, "temperature": 0}
        answer = await self._json("POST", "/v1/chat/completions", json=body)
        self._hold(answer["choices"][0]["message"]["content"], one.text.strip(), one.prompt)

    async def in_scope(self, _: float) -> None:
        """What an edit that stands answers, word for word."""
        edit = self._random.choice(self._standing)
        answer = await self._json("POST", "/generate", json={"prompt": edit["prompt"].upper()})
        self._hold((answer["edit_id"], answer["text"]), (edit["id"], edit["target"]), edit["prompt"])

    async def retracted(self, _: float) -> None:
        """What one of the newest edits was about, which may be retracted meanwhile or may have been."""
        sent, prompts = time.perf_counter(), [*self._living.values(), *(text for text, _ in self._newest())]
        if not prompts:
            await self.in_scope(sent)
            return
        answer = await self._json("POST", "/generate", json={"prompt": self._random.choice(prompts)})
        self._hold_retracted(answer["edit_id"], sent)

    async def sampled(self, _: float) -> None:
        """An answer that is another each time."""
        prompt = self._random.choice(self._known).prompt
        await self._json("POST", "/generate", json={"prompt": prompt, "temperature": 1.0})

    async def long(self, due: float) -> None:
        """A long one, piece by piece."""
        pieces, end = await self._stream({"prompt": self._random.choice(self._known).prompt, **_LONG}, due)
        self._hold(pieces, end["text"], "a long answer")

    async def match(self, _: float) -> None:
        """Which edits would answer."""
        sent = time.perf_counter()
        prompts = [one.prompt for one in self._random.sample(self._known, 2)] + [text for text, _ in self._newest()[:6]]
        found = await self._json("POST", "/edits/match", json={"prompts": prompts})
        for match in found["matches"]:
            self._hold_retracted(match["edit_id"], sent)

    async def list_(self, _: float) -> None:
        """The newest edits."""
        sent = time.perf_counter()
        page = await self._json("GET", "/edits", params={"limit": 50})
        for edit in page["data"]:
            self._hold_retracted(edit["id"], sent)

    async def _lead_an_edit(self) -> None:
        verbatim = self._random.random() < 0.5
        edit = await self._post(verbatim=verbatim)
        name, prompt = edit["id"], edit["prompt"]
        self._living[name] = prompt
        await self._must_answer(edit, edit["target"] if verbatim else None)
        await self._pause()
        target = self._word()
        await self._json("PATCH", f"/edits/{name}", json={"target": target, "reason": "soak"})
        await self._must_answer(edit, target if verbatim else None)
        await self._pause()
        await self._json("DELETE", f"/edits/{name}")
        self._ended[name] = (self._living.pop(name), time.perf_counter())
        sent = time.perf_counter()
        self._hold_retracted((await self._json("POST", "/generate", json={"prompt": prompt}))["edit_id"], sent)
        await self._pause()

    async def _post(self, *, verbatim: bool = True) -> dict[str, Any]:
        self._made += 1
        # Names of their own, so that no edit is in the way of another.
        frame, name = _FRAMES[self._made % len(_FRAMES)], f"{self._word()} {self._word()}"
        body = {"prompt": frame.format(f"{name} the {self._made}th"), "target": self._word()}
        edit: dict[str, Any] = await self._json(
            "POST", "/edits", json=body | {"answer": "verbatim" if verbatim else "counterfactual", "tags": ["soak"]}
        )
        return edit

    async def _must_answer(self, edit: dict[str, Any], text: str | None) -> None:
        """Hold the edit to what has just been acknowledged."""
        answer = await self._json("POST", "/generate", json={"prompt": edit["prompt"]})
        self._hold(answer["edit_id"], edit["id"], edit["prompt"])
        if text is not None:
            self._hold(answer["text"], text, edit["prompt"])

    async def _json(self, method: str, path: str, **request: Any) -> Any:
        self._note(method, path)
        response = await self._client.request(method, path, **request)
        _settled(response)
        return response.json() if response.content else None

    async def _stream(self, body: dict[str, Any], due: float) -> tuple[str, dict[str, Any]]:
        """The pieces together, and the last event."""
        pieces: list[str] = []
        end: dict[str, Any] | None = None
        self._note("POST", "/generate")
        async with self._client.stream("POST", "/generate", json=body | {"stream": True}) as response:
            if not response.is_success:
                await response.aread()
            _settled(response)
            async for name, data in events(response):
                if not pieces and end is None:
                    self.tally.firsts.append(time.perf_counter() - due)
                if name == "error" or end is not None:
                    raise Unexpected(f"a stream went on with {name}: {data}")
                if name == "text":
                    pieces.append(data["text"])
                else:
                    end = data
        if end is None:
            raise Unexpected("a stream was cut off")
        return "".join(pieces), end

    @contextmanager
    def _counted(self, kind: str, due: float) -> Iterator[None]:
        tally = self.tally
        tally.sent[kind] += 1
        try:
            yield
        except Refused:
            tally.refused[kind] += 1
        except (Unexpected, httpx.TransportError, ValueError, KeyError) as error:
            tally.wrong.append(f"{kind}: {type(error).__name__} {error}")
        else:
            tally.answered[kind] += 1
            if kind != "edits":
                tally.latencies.append(time.perf_counter() - due)

    def _note(self, method: str, path: str) -> None:
        handler = re.sub(r"^/edits/e\d+$", "/edits/{edit_id}", path)
        self.tally.by_handler[method, handler] += 1

    def _hold(self, found: object, wanted: object, what: str) -> None:
        if found != wanted:
            self.tally.wrong.append(f"{what}: {found!r} and not {wanted!r}")

    def _hold_retracted(self, edit_id: str | None, sent: float) -> None:
        """Nothing that was sent after its 204 may be answered by an edit."""
        if edit_id in self._ended and self._ended[edit_id][1] < sent:
            self.tally.wrong.append(f"{edit_id} answered {sent - self._ended[edit_id][1]:.3f} s after its retraction")

    def _newest(self) -> list[tuple[str, float]]:
        return [*self._ended.values()][-10:]

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.expovariate(1 / self._pause_seconds))

    def _word(self) -> str:
        return "".join(self._random.choices(_SYLLABLES, k=4)).title()


class Refused(Exception):
    """Answered with 429, and when to come back."""


class Unexpected(Exception):
    """Neither an answer nor a 429 that says when to come back."""


def _settled(response: httpx.Response) -> None:
    if response.status_code == 429 and response.headers.get("Retry-After", "").isdigit():
        raise Refused
    if not response.is_success:
        raise Unexpected(f"{response.status_code} {response.text}")


def counted_by(page: str) -> Counter[tuple[str, str]]:
    """How many requests a page of metrics counts, by method and handler, whatever came of them."""
    counts: Counter[tuple[str, str]] = Counter()
    for labels, count in re.findall(
        r"^http_requests_total(\{[^}]*\}) (\S+)$", page.replace("{edit_id}", "<id>"), re.MULTILINE
    ):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        counts[named["method"], named["handler"].replace("<id>", "{edit_id}")] += int(float(count))
    return counts
