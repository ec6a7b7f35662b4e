"""Which fields of a record each metric reads, so that nothing is asked that no figure rests on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from editors.evaluation.records import GENERATED, TEACHER_FORCED, Mode


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of a record, by name: those of in-scope probes, and those of out-of-scope probes."""

    in_scope: frozenset[str] = frozenset()
    out_of_scope: frozenset[str] = frozenset()

    def __or__(self, other: Fields) -> Fields:
        return Fields(self.in_scope | other.in_scope, self.out_of_scope | other.out_of_scope)


JUDGED: Final = Fields(frozenset({"after"}), frozenset({"before", "after"}))
"""What tells whether a probe failed; a report lists the failures whatever is measured."""

_ByMode = Mapping[Mode, Fields]

_ANSWERED: _ByMode = {
    GENERATED: Fields(in_scope=frozenset({"after"})),
    TEACHER_FORCED: Fields(frozenset({"target_after"})),
}
_PREFERRED_IN: _ByMode = {
    GENERATED: Fields(in_scope=frozenset({"after"})),
    TEACHER_FORCED: Fields(in_scope=frozenset({"target_after", "previous_after"})),
}
_PREFERRED_OUT: _ByMode = {
    GENERATED: Fields(out_of_scope=frozenset({"after"})),
    TEACHER_FORCED: Fields(out_of_scope=frozenset({"new_after", "previous_after"})),
}

READ: Final[Mapping[str, _ByMode]] = MappingProxyType(
    {
        "edit_success": _ANSWERED,
        "drawdown": {
            GENERATED: Fields(out_of_scope=frozenset({"before", "after"})),
            TEACHER_FORCED: Fields(out_of_scope=frozenset({"kept"})),
        },
        "efficacy": _PREFERRED_IN,
        "paraphrase": _PREFERRED_IN,
        "neighbourhood": _PREFERRED_OUT,
        "efficacy_magnitude": {TEACHER_FORCED: _PREFERRED_IN[TEACHER_FORCED]},
        "paraphrase_magnitude": {TEACHER_FORCED: _PREFERRED_IN[TEACHER_FORCED]},
        "neighbourhood_magnitude": {TEACHER_FORCED: _PREFERRED_OUT[TEACHER_FORCED]},
        "rome_score": {mode: _PREFERRED_IN[mode] | _PREFERRED_OUT[mode] for mode in _PREFERRED_IN},
        "portability": _ANSWERED,
        "fluency": {GENERATED: Fields(in_scope=frozenset({"after"}))},
        "sentiment_success": {TEACHER_FORCED: Fields(in_scope=frozenset({"replies"}))},
        "sentiment_drawdown": {TEACHER_FORCED: Fields(out_of_scope=frozenset({"divergence"}))},
    }
)
"""By metric and mode."""


def fields_of(metrics: Iterable[str], modes: Collection[Mode] = (GENERATED, TEACHER_FORCED)) -> Fields:
    """What has to be asked for these metrics, in these of their modes, and to tell the failures."""
    fields = JUDGED
    for metric in metrics:
        for mode, read in READ[metric].items():
            if mode in modes:
                fields |= read
    return fields
