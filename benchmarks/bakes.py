"""Ten edits from the memory into the weights and back: `python -m benchmarks.bakes`.

A running service is posted ten changes of the drift set, asked, told to bake them, activated with them, asked again,
and rolled back; then the next ten, by ROME and by MEND. Some five minutes on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.cases import apart, request_of
from benchmarks.report import write
from benchmarks.running import running_server
from demo.suites import facts
from editors.evaluation.cases import Case

EDITS = 10
_OTHERS = 10
"""Questions on facts that have not changed, of which the answers to the letter must come back."""
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bake:
    """What is asked for.

    Attributes:
        method: A weight editor.
        to_known_names: Whether the edits are of those whose new answer the base has read. ROME writes one rank, at the
            subject, and cannot teach a name that was never read.
        config: Settings beside those recommended for the bundle.
        gate: Where the default is not meant.
    """

    method: str
    to_known_names: bool
    config: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)


BAKES = (
    Bake(method="mend", to_known_names=False),
    Bake(method="rome", to_known_names=True, config={"learning_rate": 0.25}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What became of ten edits.

    Attributes:
        state: Of the bake.
        answered: Questions to which the weights alone say what the memory said.
        drawdown: Share of the probe set's answers that changed, as the bake measured it.
        relative_norm: ||change|| / ||weight|| of the weight that changed most.
        identical: Whether every answer after rolling back, other questions among them, is what it was before.
    """

    state: str
    answered: int
    drawdown: float
    relative_norm: float
    identical: bool


def main() -> None:
    """Measure, print the table, and write docs/benchmarks/bakes.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5, help="of ten edits each, none in two of them")
    draws: int = parser.parse_args().draws
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "data") as server,
        server.client() as client,
    ):
        found = [
            (bake, [tried(client, bake, cases) for cases in tqdm(_draws(bake, draws), desc=bake.method, disable=None)])
            for bake in BAKES
        ]
    figures = [{"bake": asdict(bake), "draws": [asdict(one) for one in tries]} for bake, tries in found]
    write("bakes", "Ten edits into the weights and back", render(found), {"edits": EDITS, "bakes": figures})


def _draws(bake: Bake, draws: int) -> list[list[Case]]:
    return [apart(EDITS, draw, draws, to_known_names=bake.to_known_names) for draw in range(draws)]


def tried(client: httpx.Client, bake: Bake, cases: Sequence[Case]) -> Tried:
    """Take edits all the way and back; the service is left as it was found, but for a version that nobody uses.

    Raises:
        RuntimeError: A question was answered by something else than it should.
    """
    requests = [request_of(case) for case in cases]
    questions = [request.prompt for request in requests]
    others = [case.in_scope[0].prompt for case in facts()[:: len(facts()) // _OTHERS]][:_OTHERS]
    untouched = _ask(client, others)
    edits = [
        _post(client, "/edits", {"prompt": r.prompt, "target": r.target, "subject": r.subject})["id"] for r in requests
    ]
    before = _ask(client, questions, source="edit")
    baked = _baked(client, {"method": bake.method, "config": bake.config, "gate": bake.gate})
    from_weights: list[str] = []
    if baked["version"]:
        _post(client, f"/checkpoints/{baked['version']}/activate", {})
        from_weights = _ask(client, questions, source="base")
        _post(client, "/checkpoints/rollback", {})
    identical = _ask(client, questions, source="edit") == before and _ask(client, others) == untouched
    for edit in edits:
        client.delete(f"/edits/{edit}").raise_for_status()
    values = {finding["measure"]: finding["value"] for finding in baked["report"]["findings"]}
    return Tried(
        state=baked["state"],
        answered=sum(one == other for one, other in zip(from_weights, before, strict=False)),
        drawdown=values["drawdown"],
        relative_norm=values["relative_norm"],
        identical=identical,
    )


def _ask(client: httpx.Client, prompts: Sequence[str], *, source: str | None = None) -> list[str]:
    answers = [_post(client, "/generate", {"prompt": prompt}) for prompt in prompts]
    if wrong := [answer for answer in answers if source not in {None, answer["source"]}]:
        raise RuntimeError(f"not answered by {source}: {wrong[0]}")
    return [str(answer["text"]) for answer in answers]


def _baked(client: httpx.Client, request: dict[str, Any]) -> dict[str, Any]:
    """A bake that has ended.

    Raises:
        RuntimeError: It ended without a report.
    """
    bake = _post(client, "/bakes", request)
    while bake["state"] in {"queued", "running"}:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        bake = client.get(f"/bakes/{bake['id']}").raise_for_status().json()
    if not (bake["report"] and bake["report"]["findings"]):
        raise RuntimeError(f"the bake measured nothing: {bake}")
    return bake


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(path, json=body).raise_for_status().json()
    return answer


def render(found: Sequence[tuple[Bake, Sequence[Tried]]]) -> list[str]:
    """The table."""
    lines = [
        f"{EDITS} changes of the drift set are posted, served from the memory, baked, activated and rolled back, by a",
        "running service. Answered: by the weights, with no edit left in the memory, what the memory had said. ROME's",
        "are changes to names that the base has read; MEND's are any. Settings are those recommended, unless told.",
        "Drawdown and norm are the bake's own, on its probe set.",
        "",
        "| method | draw | bake | answered the same | drawdown | relative norm | rolled back, identical |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for bake, tries in found:
        settings = ", ".join(f"{name}={value:g}" for name, value in (bake.config | bake.gate).items())
        name = f"{bake.method} ({settings})" if settings else bake.method
        lines += [
            f"| {name} | {number} | {one.state} | {one.answered} of {EDITS} | {one.drawdown:.3f} | "
            f"{one.relative_norm:.2f} | {'yes' if one.identical else 'no'} |"
            for number, one in enumerate(tries, start=1)
        ]
    return lines


if __name__ == "__main__":
    main()
