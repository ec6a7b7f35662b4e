"""Writers that note every write before they send it and every acknowledgement, so that none can be lost unnoticed.

An edit is known by its tag, which its writer chose. A write gives one or more edits a new face at once: a post one, an
edit that supersedes another two, an import several.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from threading import Event, Thread

import httpx

Face = tuple[str, str]
"""State and target."""
Write = dict[str, Face]
"""The faces that a write gives, by tag."""

IMPORTED = 4
_SYLLABLES = ("ba", "do", "fi", "gu", "ka", "lo", "mi", "nu", "po", "ra", "se", "tu", "vo", "zi")
_POST, _CHANGE, _RETRACT, _SUPERSEDE, _IMPORT = "post", "change", "retract", "supersede", "import"
_OFTEN = {_POST: 5, _CHANGE: 4, _RETRACT: 1, _SUPERSEDE: 2, _IMPORT: 1}


class Refused(Exception):
    """An answer that is neither an acknowledgement nor a 503."""


@dataclass(slots=True)
class Ledger:
    """What one writer knows.

    Attributes:
        acknowledged: The face of each edit after the last write of it that was acknowledged.
        doubts: Writes that were sent and never acknowledged.
        ids: Of edits, where an answer told it.
        prompts: Of edits.
        touched: Tags of the writes since the last settling.
        count: Writes acknowledged.
        unavailable: Writes answered with 503.
    """

    acknowledged: Write = field(default_factory=dict)
    doubts: list[Write] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    count: int = 0
    unavailable: int = 0

    def settle(self, seen: Write) -> list[str]:
        """Compare with what is there now, which then counts as acknowledged; what is wrong, in words."""
        wrong = []
        doubtful = {tag for doubt in self.doubts for tag in doubt}
        for tag, face in self.acknowledged.items():
            if tag not in doubtful and seen.get(tag) != face:
                wrong.append(f"{tag} was acknowledged as {face} and is {seen.get(tag)}")
        for doubt in self.doubts:
            before = {tag: self.acknowledged.get(tag) for tag in doubt}
            now = {tag: seen.get(tag) for tag in doubt}
            if now not in (before, doubt):
                wrong.append(f"a write that was not acknowledged is half there: from {before} to {doubt} came {now}")
            self.acknowledged |= {tag: face for tag, face in now.items() if face is not None}
        self.doubts.clear()
        return wrong


class Writer(Thread):
    """Writes until it is told to stop, or until the server is gone.

    Args:
        name: Begins its tags.
        url: Of the server.
        ledger: Continued, so that one writer may follow on another.
        acknowledged: Set at the first acknowledgement.
        seed: Of what it chooses.
    """

    def __init__(self, name: str, url: str, ledger: Ledger, *, acknowledged: Event, stop: Event, seed: str) -> None:
        super().__init__(name=name, daemon=True)
        self.failure: Exception | None = None
        self._url = url
        self._ledger = ledger
        self._acknowledged = acknowledged
        self._stop_asked = stop
        self._random = Random(seed)

    def run(self) -> None:
        """One write after another."""
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop_asked.is_set():
                try:
                    self._write(client)
                except httpx.TransportError:
                    return  # the server was killed
                except Exception as error:
                    self.failure = error
                    return

    def _write(self, client: httpx.Client) -> None:
        kind = self._random.choices([*_OFTEN], weights=[*_OFTEN.values()])[0]
        tag = None if kind in {_POST, _IMPORT} else self._settled_tag()
        if tag is None:
            tags = [self._new_tag() for _ in range(IMPORTED if kind == _IMPORT else 1)]
            after = {tag: ("active", self._word()) for tag in tags}
            bodies = [self._body(tag, target) for tag, (_, target) in after.items()]
            if kind == _IMPORT:
                lines = "\n".join(map(json.dumps, bodies))
                headers = {"Content-Type": "application/x-ndjson"}
                self._send(client, after, "POST", "/edits/import", content=lines, headers=headers)
            else:
                self._send(client, after, "POST", "/edits", json=bodies[0])
            return
        _, target = self._ledger.acknowledged[tag]
        path = f"/edits/{self._ledger.ids[tag]}"
        if kind == _RETRACT:
            self._send(client, {tag: ("retracted", target)}, "DELETE", path)
        elif kind == _SUPERSEDE:
            new, word = self._new_tag(), self._word()
            self._ledger.prompts[new] = self._ledger.prompts[tag]
            body = self._body(new, word) | {"supersedes": self._ledger.ids[tag]}
            self._send(client, {tag: ("retracted", target), new: ("active", word)}, "POST", "/edits", json=body)
        else:
            wanted = (self._random.choice(["active", "paused"]), self._word())
            self._send(client, {tag: wanted}, "PATCH", path, json={"state": wanted[0], "target": wanted[1]})

    def _send(self, client: httpx.Client, after: Write, method: str, path: str, **content: object) -> None:
        ledger = self._ledger
        ledger.touched |= after.keys()
        ledger.doubts.append(after)
        response = client.request(method, path, **content)  # type: ignore[arg-type]
        if response.status_code == 503 and response.headers["Content-Type"] == "application/problem+json":
            ledger.unavailable += 1
            self._stop_asked.wait(0.05)
            return
        if not response.is_success:
            raise Refused(f"{method} {path}: {response.status_code} {response.text}")
        ledger.doubts.remove(after)
        ledger.acknowledged |= after
        ledger.count += 1
        if response.status_code == 201:
            ids = response.json()
            made = [tag for tag in after if tag not in ledger.ids]
            ledger.ids |= zip(made, ids.get("ids") or [ids["id"]], strict=True)
        self._acknowledged.set()

    def _settled_tag(self) -> str | None:
        """An edit that can be changed, and about which there is no doubt."""
        ledger = self._ledger
        doubtful = {tag for doubt in ledger.doubts for tag in doubt}
        some = self._random.sample([*ledger.acknowledged], min(20, len(ledger.acknowledged)))
        free = (tag for tag in some if tag in ledger.ids and tag not in doubtful)
        return next((tag for tag in free if ledger.acknowledged[tag][0] != "retracted"), None)

    def _new_tag(self) -> str:
        tag = f"{self.name}-{len(self._ledger.prompts)}"
        self._ledger.prompts[tag] = f"Who is the mayor of {self._word().title()} {tag}?"
        return tag

    def _word(self) -> str:
        return "".join(self._random.choices(_SYLLABLES, k=5))

    def _body(self, tag: str, target: str) -> dict[str, object]:
        return {"prompt": self._ledger.prompts[tag], "target": target, "tags": [tag]}
