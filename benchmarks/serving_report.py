"""What serving costs and gains, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.among_edits import Among

CLIENTS = 32
EDITS = 1000
MEAN, SHORTEST, LONGEST = 32, 4, 128
"""Tokens of an answer: drawn from an exponential distribution with this mean, within these bounds."""
ONE_CLIENT_TOKENS = 32
LEAST_OVER_LOOP, LEAST_OVER_STATIC, MOST_COST, MOST_FOUND_COST = 4.0, 1.5, 1.06, 1.02
"""What is required: tokens a second against the loop's and the static batches', and the edit layer's latency, by itself
and where the answer is found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One model's figures.

    Attributes:
        loop, static, continuous: Tokens a second.
        plain: Likewise, of the engine without weights laid out.
        first_p50, first_p99: Milliseconds from a request to its first token, with `CLIENTS` clients.
        alone_ms, edited_ms: The median answer to one client, without and with a scope decision.
        found_ms: Likewise, with a scope decision and the answer found in the cache.
        compared, different: Greedy answers given among others, and how many of them differ from those given alone.
    """

    model: str
    parameters: int
    requests: int
    loop: float
    static: float
    plain: float
    continuous: float
    first_p50: float
    first_p99: float
    alone_ms: float
    edited_ms: float
    found_ms: float
    compared: int
    different: int

    @property
    def cost(self) -> float:
        """What the edit layer multiplies the latency by."""
        return self.edited_ms / self.alone_ms

    @property
    def found_cost(self) -> float:
        """Likewise, where the answer is found."""
        return self.found_ms / self.alone_ms


def render(found: Sequence[Served]) -> list[str]:
    """The tables."""
    many = (
        f"Tokens a second with {CLIENTS} clients, answers of {MEAN} tokens on average ({SHORTEST} to {LONGEST}). "
        f"Required: at least {LEAST_OVER_LOOP:g} times a loop of `model.generate`, and {LEAST_OVER_STATIC:g} times "
        "static batches."
    )
    one_client = (
        f"One client, {ONE_CLIENT_TOKENS} tokens: the engine alone, and with a scope decision among {EDITS:,} edits "
        f"before each answer, to questions that no edit covers. Required: at most {MOST_COST:g} of the latency, on a "
        "model of 125 million parameters. Then with the cache warm: the decision, and the answer found, against the "
        f"engine alone, which has neither. Required: at most {MOST_FOUND_COST:g}. And greedy answers that were given "
        "among others, against `model.generate` alone: none may differ."
    )
    return [
        many,
        "",
        *_table(
            "model, parameters, requests, loop, static batches, the engine without layouts, the engine, "
            "against the loop, against static batches, first token (median ms), first token (99th percentile ms)",
            [_many(one) for one in found],
        ),
        "",
        one_client,
        "",
        *_table(
            "model, alone (median ms), with the edit layer (median ms), cost, with the cache warm (median ms), cost, "
            "answers compared, different",
            [_one(one) for one in found],
        ),
    ]


def render_among(among: Among) -> list[str]:
    """What a real server answered while edits came and went."""
    said = (
        f"A real server with the bundled model, {CLIENTS} clients that read greedy answers piece by piece, prompts and "
        "answers of mixed lengths; meanwhile edits were posted, changed and retracted. Each answer against "
        "`model.generate` alone: none may differ. The first token is timed by the client."
    )
    late = [1000 * float(np.percentile(among.firsts, percent)) for percent in (50, 99)]
    cells = [f"{among.compared:,}", str(among.edits), *(f"{one:.0f}" for one in late), str(len(among.wrong))]
    columns = "answers compared, edits, first token (median ms), first token (99th percentile ms), found wrong"
    return [said, "", *_table(columns, [cells]), *(f"- {said}" for said in among.wrong[:20])]


def _many(one: Served) -> list[str]:
    return [
        one.model,
        f"{one.parameters / 1e6:.0f} million",
        str(one.requests),
        f"{one.loop:.0f}",
        f"{one.static:.0f}",
        f"{one.plain:.0f}",
        f"{one.continuous:.0f}",
        f"{one.continuous / one.loop:.2f}",
        f"{one.continuous / one.static:.2f}",
        f"{one.first_p50:.0f}",
        f"{one.first_p99:.0f}",
    ]


def _one(one: Served) -> list[str]:
    figures = (f"{one.alone_ms:.1f}", f"{one.edited_ms:.1f}", f"{one.cost:.3f}")
    found = (f"{one.found_ms:.1f}", f"{one.found_cost:.3f}")
    return [one.model, *figures, *found, f"{one.compared:,}", str(one.different)]


def _table(columns: str, rows: Sequence[Sequence[str]]) -> list[str]:
    names = columns.split(", ")
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]
