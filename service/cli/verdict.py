"""What a smoke test says: whether ES and DD are within their bounds, and which edits are to blame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What ES must reach or DD must not exceed.

    Attributes:
        in_scope: Whether it is ES, which in-scope probes decide; DD is decided by those out of scope.
        measured: The figure, generated, as the service reports it; None when no probe decides it.
    """

    name: str
    in_scope: bool
    limit: float
    measured: dict[str, Any] | None

    @property
    def holds(self) -> bool:
        """Whether the bound is kept; one that nothing was measured for is."""
        if self.measured is None:
            return True
        value: float = self.measured["value"]
        return value >= self.limit if self.in_scope else value <= self.limit

    @property
    def wanted(self) -> str:
        """Such as `ES at least 0.95`."""
        return f"{self.name} at {'least' if self.in_scope else 'most'} {self.limit:g}"

    def __str__(self) -> str:
        if self.measured is None:
            return f"{self.wanted}: not measured"
        value, low, high = (self.measured[field] for field in ("value", "low", "high"))
        result = "holds" if self.holds else "missed"
        cases = _count(self.measured["cases"], "case")
        return f"{self.wanted}: {result}, {value:.3f} [{low:.3f}, {high:.3f}] over {cases}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A smoke test's result.

    Attributes:
        edits: Those in force, as the service lists them.
        evaluation: Of them, as the service keeps it; None when there was no edit to evaluate.
        failures: Probes that failed, by the edit to blame; by their case when no edit is.
    """

    edits: list[dict[str, Any]]
    evaluation: dict[str, Any] | None
    bounds: tuple[Bound, ...]
    failures: dict[str, list[dict[str, Any]]]

    @classmethod
    def of(
        cls,
        edits: list[dict[str, Any]],
        evaluation: dict[str, Any] | None,
        failures: list[dict[str, Any]],
        *,
        min_es: float,
        max_dd: float,
    ) -> Verdict:
        """Judge an evaluation; its failures each name the `edit` to blame. None in force leaves nothing to judge."""
        measured = evaluation["report"]["measured"] if evaluation else []
        by_edit: dict[str, list[dict[str, Any]]] = {}
        for failure in failures:
            by_edit.setdefault(failure["edit"], []).append(failure)
        bounds = (
            Bound(name="ES", in_scope=True, limit=min_es, measured=_generated(measured, "edit_success")),
            Bound(name="DD", in_scope=False, limit=max_dd, measured=_generated(measured, "drawdown")),
        )
        return cls(edits=edits, evaluation=evaluation, bounds=bounds, failures=by_edit)

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(bound.holds for bound in self.bounds)

    @property
    def unlisted(self) -> int:
        """How many failed probes the report leaves out."""
        if self.evaluation is None:
            return 0
        report = self.evaluation["report"]
        return int(report["failure_count"]) - len(report["failures"])

    def blamed(self, edit: str) -> list[dict[str, Any]]:
        """The failed probes of an edit that count towards a bound that is missed."""
        missed = {bound.in_scope for bound in self.bounds if not bound.holds}
        return [failure for failure in self.failures.get(edit, []) if failure["in_scope"] in missed]

    @property
    def summary(self) -> str:
        """The verdict in a line."""
        if self.evaluation is None:
            return "passed: no edit is in force, so there is nothing to check"
        report = self.evaluation["report"]
        failed, probes = report["failure_count"], report["probes"]
        unlisted = f" ({self.unlisted:,} of them not listed)" if self.unlisted else ""
        result = "passed" if self.passed else "failed"
        return f"{result}: {_count(len(self.edits), 'edit')} in force, {failed:,} of {probes:,} probes failed{unlisted}"

    @property
    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "passed": self.passed,
            "bounds": [{**asdict(bound), "holds": bound.holds} for bound in self.bounds],
            "edits": [edit["id"] for edit in self.edits],
            "failures": self.failures,
            "unlisted": self.unlisted,
            "evaluation": None if self.evaluation is None else self.evaluation["id"],
        }


def _generated(measured: list[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    wanted = {"metric": metric, "mode": "generated", "form": None}
    return next((one for one in measured if all(one[field] == value for field, value in wanted.items())), None)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
