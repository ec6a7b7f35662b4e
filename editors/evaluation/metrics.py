"""The metrics: the only list of what can be measured, each computed from records. docs/evaluation.md describes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from editors.evaluation import needs
from editors.evaluation.cases import EDIT, PARAPHRASE, Case
from editors.evaluation.counterfact import harmonic_mean, lead, preferred
from editors.evaluation.fluency import generation_entropy
from editors.evaluation.intervals import Estimate, Sample, bootstrap, bootstrap_statistic, case_means
from editors.evaluation.needs import Need, lacking
from editors.evaluation.records import GENERATED, TEACHER_FORCED, Mode, Record
from editors.evaluation.sentiment import sentiment_success
from editors.evaluation.success import carried_over, disagreed, succeeded

_Measure = Callable[[Record, Mode], float | None]
"""The value of one probe; None where the record is not of the metric's kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Something to measure.

    Attributes:
        name: As requests and reports call it.
        description: What it says, in a line.
        modes: In which it exists.
        kinds: What cases must give: for each kind, some case must meet all its needs.
        compute: From records and a mode to the figure; None where no record is of its kind.
    """

    name: str
    description: str
    modes: tuple[Mode, ...] = (GENERATED, TEACHER_FORCED)
    kinds: tuple[tuple[Need, ...], ...]
    compute: Callable[[Sequence[Record], Mode], Estimate | None]

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of a case that it needs."""
        return tuple(dict.fromkeys(need.field for kind in self.kinds for need in kind))

    def lacking(self, cases: Sequence[Case]) -> str | None:
        """What the cases lack for it, in a sentence; None when it can be measured on some of them."""
        return lacking(self.kinds, cases)

    def estimate(self, records: Sequence[Record], *, mode: Mode, form: str | None = None) -> Estimate | None:
        """The figure with its interval, of all records or of those of one form.

        Returns:
            None where no record is of its kind, or what it is made of was not asked in this mode.

        Raises:
            ValueError: The metric does not exist in this mode.
        """
        if mode not in self.modes:
            raise ValueError(f"{self.name} exists {' and '.join(self.modes)} only, not {mode}")
        return self.compute([record for record in records if form is None or record.form == form], mode)


def _sample(records: Sequence[Record], measure: _Measure, mode: Mode) -> Sample:
    measured = [(value, record.case) for record in records if (value := measure(record, mode)) is not None]
    return [value for value, _ in measured], [case for _, case in measured]


def _over_probes(measure: _Measure) -> Callable[[Sequence[Record], Mode], Estimate | None]:
    """An expectation over probes: each counts once, as in SERAC's equations."""

    def compute(records: Sequence[Record], mode: Mode) -> Estimate | None:
        values, cases = _sample(records, measure, mode)
        return bootstrap(values, groups=cases) if values else None

    return compute


def _over_cases(measure: _Measure) -> Callable[[Sequence[Record], Mode], Estimate | None]:
    """An average within each case, then over cases: each case counts once, as in ROME's tables."""

    def compute(records: Sequence[Record], mode: Mode) -> Estimate | None:
        values, cases = case_means(*_sample(records, measure, mode))
        return bootstrap(values, groups=cases) if values else None

    return compute


def _inside(form: str, measure: _Measure) -> _Measure:
    """The measure on in-scope probes of one form."""
    return lambda record, mode: measure(record, mode) if record.in_scope and record.form == form else None


def _outside(measure: _Measure) -> _Measure:
    """The measure on out-of-scope probes."""
    return lambda record, mode: None if record.in_scope else measure(record, mode)


def _lead(record: Record, _: Mode) -> float | None:
    return lead(record)


def _entropy(record: Record, _: Mode) -> float | None:
    return generation_entropy(record.after) if record.in_scope and record.after is not None else None


def _mood(record: Record, _: Mode) -> float | None:
    return None if record.replies is None else sentiment_success(record.replies)


def _divergence(record: Record, _: Mode) -> float | None:
    return record.divergence


_EFFICACY = (needs.EDITED, needs.PREVIOUS)
_PARAPHRASE = (needs.PARAPHRASED, needs.PREVIOUS)
_NEIGHBOURHOOD = (needs.NEIGHBOURS, needs.NEW, needs.PREVIOUS)

_efficacy = _inside(EDIT, preferred)
_paraphrase = _inside(PARAPHRASE, preferred)
_neighbourhood = _outside(preferred)


def _rome_score(records: Sequence[Record], mode: Mode) -> Estimate | None:
    samples = [case_means(*_sample(records, measure, mode)) for measure in (_efficacy, _paraphrase, _neighbourhood)]
    return bootstrap_statistic(samples, harmonic_mean) if all(values for values, _ in samples) else None


_ALL = (
    Metric(
        name="edit_success",
        description="ES: share of in-scope probes that get the right answer.",
        kinds=((needs.ANSWERABLE,),),
        compute=_over_probes(succeeded),
    ),
    Metric(
        name="drawdown",
        description="DD: share of out-of-scope probes whose answer is not the base's.",
        kinds=((needs.OUT_OF_SCOPE,),),
        compute=_over_probes(disagreed),
    ),
    Metric(
        name="efficacy",
        description="Share of edits' own prompts where the new answer beats the one before.",
        kinds=(_EFFICACY,),
        compute=_over_cases(_efficacy),
    ),
    Metric(
        name="paraphrase",
        description="Share of paraphrases where the new answer beats the one before.",
        kinds=(_PARAPHRASE,),
        compute=_over_cases(_paraphrase),
    ),
    Metric(
        name="neighbourhood",
        description="Share of neighbours where the answer before, which is true of them, beats the new one.",
        kinds=(_NEIGHBOURHOOD,),
        compute=_over_cases(_neighbourhood),
    ),
    Metric(
        name="efficacy_magnitude",
        description="How much likelier the new answer is than the one before, on edits' own prompts.",
        modes=(TEACHER_FORCED,),
        kinds=(_EFFICACY,),
        compute=_over_cases(_inside(EDIT, _lead)),
    ),
    Metric(
        name="paraphrase_magnitude",
        description="How much likelier the new answer is than the one before, on paraphrases.",
        modes=(TEACHER_FORCED,),
        kinds=(_PARAPHRASE,),
        compute=_over_cases(_inside(PARAPHRASE, _lead)),
    ),
    Metric(
        name="neighbourhood_magnitude",
        description="How much likelier the answer before is than the new one, on neighbours.",
        modes=(TEACHER_FORCED,),
        kinds=(_NEIGHBOURHOOD,),
        compute=_over_cases(_outside(_lead)),
    ),
    Metric(
        name="rome_score",
        description="S: harmonic mean of efficacy, paraphrase and neighbourhood.",
        kinds=(_EFFICACY, _PARAPHRASE, _NEIGHBOURHOOD),
        compute=_rome_score,
    ),
    Metric(
        name="portability",
        description="Share of probes on what follows from an edit that get the right answer.",
        kinds=((needs.FOLLOWING,),),
        compute=_over_probes(carried_over),
    ),
    Metric(
        name="fluency",
        description="GE: entropy of the bigrams and trigrams of what is answered in scope, in bits.",
        modes=(GENERATED,),
        kinds=((needs.IN_SCOPE,),),
        compute=_over_cases(_entropy),
    ),
    Metric(
        name="sentiment_success",
        description="ES of edits of mood: the wished mood, still on the topic.",
        modes=(TEACHER_FORCED,),
        kinds=((needs.IN_SCOPE, needs.REPLIES),),
        compute=_over_probes(_mood),
    ),
    Metric(
        name="sentiment_drawdown",
        description="DD of edits of mood: KL divergence from the base on other topics, in nats per token.",
        modes=(TEACHER_FORCED,),
        kinds=((needs.OUT_OF_SCOPE, needs.REPLIES),),
        compute=_over_probes(_divergence),
    ),
)

METRICS: Final = MappingProxyType({metric.name: metric for metric in _ALL})
