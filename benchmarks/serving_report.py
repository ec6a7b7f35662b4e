"""What `benchmarks.serving` found, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CLIENTS = 32
EDITS = 1000
MEAN, SHORTEST, LONGEST = 32, 4, 128
"""Tokens of an answer: drawn from an exponential distribution with this mean, within these bounds."""
ONE_CLIENT_TOKENS = 32
LEAST_OVER_LOOP, LEAST_OVER_STATIC, MOST_COST = 4.0, 1.5, 1.06
"""What is required: tokens a second against the loop's and the static batches', and the edit layer's latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One model's figures.

    Attributes:
        loop, static, continuous: Tokens a second.
        plain: Likewise, of the engine without weights laid out, in turn with `continuous`.
        first_p50, first_p99: Milliseconds from a request to its first token, with `CLIENTS` clients.
        plain_ms, alone_ms, edited_ms: The median answer to one client: without weights laid out, with, and after a
            scope decision.
        compared, different: Greedy answers given among others, and how many of them differ from those given alone.
        generated: How many of them differ from what `model.generate` gives, whose weights are not laid out.
    """

    model: str
    parameters: int
    requests: int
    loop: float
    static: float
    continuous: float
    plain: float
    first_p50: float
    first_p99: float
    plain_ms: float
    alone_ms: float
    edited_ms: float
    compared: int
    different: int
    generated: int

    @property
    def cost(self) -> float:
        """What the edit layer multiplies the latency by."""
        return self.edited_ms / self.alone_ms


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
        "model of 125 million parameters. And greedy answers that were given among others, against the engine asked "
        "for them alone, and against `model.generate`: none may differ."
    )
    return [
        many,
        "",
        *_table(
            "model, parameters, requests, loop, static batches, the engine, against the loop, against static batches, "
            "against itself without weights laid out, first token (median ms), first token (99th percentile ms)",
            [_many(one) for one in found],
        ),
        "",
        one_client,
        "",
        *_table(
            "model, weights not laid out (median ms), alone (median ms), with the edit layer (median ms), cost, "
            "answers compared, different, different from `model.generate`",
            [_one(one) for one in found],
        ),
    ]


def _many(one: Served) -> list[str]:
    return [
        one.model,
        f"{one.parameters / 1e6:.0f} million",
        str(one.requests),
        f"{one.loop:.0f}",
        f"{one.static:.0f}",
        f"{one.continuous:.0f}",
        f"{one.continuous / one.loop:.2f}",
        f"{one.continuous / one.static:.2f}",
        f"{one.continuous / one.plain:.2f}",
        f"{one.first_p50:.0f}",
        f"{one.first_p99:.0f}",
    ]


def _one(one: Served) -> list[str]:
    figures = (f"{one.plain_ms:.1f}", f"{one.alone_ms:.1f}", f"{one.edited_ms:.1f}", f"{one.cost:.3f}")
    return [one.model, *figures, f"{one.compared:,}", str(one.different), str(one.generated)]


def _table(columns: str, rows: Sequence[Sequence[str]]) -> list[str]:
    names = columns.split(", ")
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]
