"""Estimates, as the tables show them and as the JSON keeps them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, replace

from editors.evaluation.intervals import Estimate, Share, bootstrap


def share(hits: Sequence[float], groups: Sequence[Hashable]) -> Estimate:
    """The share of hits with its bootstrap interval over groups; see `widened`."""
    return widened(bootstrap(hits, groups=groups))


def widened(estimate: Estimate) -> Estimate:
    """A share of none or all, with Wilson's interval over its cases: the bootstrap gives such a share no width."""
    if estimate.value not in {0, 1}:
        return estimate
    low, high = Share(round(estimate.value) * estimate.cases, estimate.cases).interval
    return replace(estimate, low=min(low, estimate.low), high=max(high, estimate.high))


def cell(estimate: Estimate | None) -> str:
    """As a table shows it."""
    return "-" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def plain(estimate: Estimate | None) -> dict[str, float] | None:
    """As JSON keeps it."""
    return None if estimate is None else asdict(estimate)
