"""From records to what a report says: figures by metric, mode and form, and the probes that failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from editors.evaluation.intervals import Estimate
from editors.evaluation.metrics import METRICS
from editors.evaluation.records import Mode, Record
from editors.evaluation.text import answers


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a report.

    Attributes:
        metric: Its name.
        mode: How answers were had.
        form: The form of probes it is restricted to; None for all.
    """

    metric: str
    mode: Mode
    form: str | None
    estimate: Estimate


def summarise(records: Sequence[Record], metrics: Iterable[str]) -> list[Figure]:
    """The figures of these metrics, in every mode in which the records allow them.

    Each over all probes first, and then by form where the records that it rests on are of several.
    """
    return [figure for name in metrics for mode in METRICS[name].modes for figure in _figures(records, name, mode)]


def failures(records: Iterable[Record]) -> Iterator[Record]:
    """The probes that did not come out as they should: in scope without the target, out of scope with a changed text.

    A probe without a target, and one that was not asked, cannot fail.
    """
    for record in records:
        if record.after is None:
            continue
        if record.in_scope:
            failed = record.target is not None and not answers(record.after, record.target)
        else:
            failed = record.before is not None and record.after != record.before
        if failed:
            yield record


def _figures(records: Sequence[Record], name: str, mode: Mode) -> Iterator[Figure]:
    metric = METRICS[name]
    overall = metric.estimate(records, mode=mode)
    if overall is None:
        return
    yield Figure(name, mode, None, overall)
    forms = sorted({record.form for record in records})
    by_form = [(form, metric.estimate(records, mode=mode, form=form)) for form in forms]
    found = [Figure(name, mode, form, estimate) for form, estimate in by_form if estimate is not None]
    if len(found) > 1:
        yield from found
