"""Shares of cases, with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

_Z = 1.96
"""Of the normal distribution, for 95%."""


@dataclass(frozen=True, slots=True)
class Share:
    """Hits among cases, of which there is at least one."""

    hits: int
    cases: int

    @classmethod
    def of(cls, hits: list[bool]) -> Share:
        """The share of True.

        Raises:
            ValueError: The list is empty.
        """
        if not hits:
            raise ValueError("a share needs at least one case")
        return cls(sum(hits), len(hits))

    @property
    def value(self) -> float:
        """The share itself, in [0, 1]."""
        return self.hits / self.cases

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% score interval (Wilson 1927), which holds for few cases and for shares near 0 and 1."""
        n, p = self.cases, self.value
        centre = (p + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
        half = _Z * sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n)) / (1 + _Z * _Z / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}] of {self.cases:,}"
