"""Every metric on a handful of records whose figures can be counted, and against other formulations."""

import math
import random
import statistics

import numpy as np
import pytest

from editors.evaluation.metrics import METRICS
from editors.evaluation.records import GENERATED, TEACHER_FORCED, Record, RepliesScored
from editors.evaluation.subject import Scored


def said(probability, *, tokens=1, exact=True):
    """A target whose tokens each have this probability."""
    return Scored((math.log(probability),) * tokens, (True,) * (tokens - 1) + (exact,))


def inside(case, form, after=None, *, target="Boris", previous="Theresa", new=None, old=None, exact=True, **fields):
    return Record(
        case=case,
        form=form,
        in_scope=True,
        prompt=f"{case} {form}?",
        target=target,
        previous=previous,
        after=after,
        target_after=None if new is None else said(new, tokens=2, exact=exact),
        previous_after=None if old is None else said(old, tokens=3),
        **fields,
    )


def outside(case, form="neighbour", before=None, after=None, *, target="Theresa", new=None, old=None, **fields):
    return Record(
        case=case,
        form=form,
        in_scope=False,
        prompt=f"{case} {form}!",
        target=target,
        previous="Theresa",
        before=before,
        after=after,
        new_after=None if new is None else said(new, tokens=2),
        previous_after=None if old is None else said(old, tokens=3),
        **fields,
    )


RECORDS = (
    inside("a", "edit", "Boris.", new=0.5, old=0.1),
    inside("a", "paraphrase", "Boris, of course", new=0.4, old=0.2),
    inside("a", "paraphrase", "Theresa", new=0.1, old=0.3, exact=False),
    inside("a", "paraphrase", "Yes, Boris", new=0.2, old=0.4, exact=False),
    inside("a", "composed", "Carrie", target="Carrie", new=0.6),
    inside("a", "entailed", "True", target="False", new=0.3, exact=False),
    outside("a", before="Theresa", after="Theresa", new=0.1, old=0.5, kept=said(0.5)),
    outside("a", before="Theresa", after="Theresa!", new=0.3, old=0.2, kept=said(0.5, exact=False)),
    inside("b", "edit", "Theresa", new=0.2, old=0.3, exact=False),
    inside("b", "paraphrase", "Boris", new=0.9, old=0.05),
    inside("b", "composed", "Nobody", target="Carrie", new=0.1, exact=False),
    outside("b", before="Theresa", after="Boris", new=0.6, old=0.1, kept=said(0.1, exact=False)),
    outside("b", "other", before="Lima", after="Lima", target="Lima", new=0.1, old=0.9, kept=said(0.9)),
)

BY_HAND = {
    # In scope, over probes: four of nine ("Boris.", "Boris, of course", "Carrie" and "Boris"; .5, .4, .6 and .9).
    ("edit_success", GENERATED): 4 / 9,
    ("edit_success", TEACHER_FORCED): 4 / 9,
    # Out of scope, over probes: "Theresa!" and "Boris" of four.
    ("drawdown", GENERATED): 2 / 4,
    ("drawdown", TEACHER_FORCED): 2 / 4,
    # ROME's, within cases first.
    ("efficacy", GENERATED): (1 + 0) / 2,
    ("efficacy", TEACHER_FORCED): (1 + 0) / 2,
    ("paraphrase", GENERATED): (1 / 3 + 1) / 2,
    ("paraphrase", TEACHER_FORCED): (1 / 3 + 1) / 2,
    ("neighbourhood", GENERATED): (2 / 2 + 0) / 2,
    ("neighbourhood", TEACHER_FORCED): (1 / 2 + 0) / 2,
    ("efficacy_magnitude", TEACHER_FORCED): (0.4 - 0.1) / 2,
    ("paraphrase_magnitude", TEACHER_FORCED): ((0.2 - 0.2 - 0.2) / 3 + 0.85) / 2,
    ("neighbourhood_magnitude", TEACHER_FORCED): ((0.4 - 0.1) / 2 - 0.5) / 2,
    ("rome_score", GENERATED): 3 / (2 + 3 / 2 + 2),
    ("rome_score", TEACHER_FORCED): 3 / (2 + 3 / 2 + 4),
    # Carrie, of three.
    ("portability", GENERATED): 1 / 3,
    ("portability", TEACHER_FORCED): 1 / 3,
}


@pytest.mark.parametrize(("metric", "mode"), BY_HAND)
def test_figures_by_hand(metric, mode):
    estimate = METRICS[metric].estimate(RECORDS, mode=mode)
    assert estimate.value == pytest.approx(BY_HAND[metric, mode])
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.cases == 2


def test_every_metric_is_counted_by_hand_somewhere():
    elsewhere = {("fluency", GENERATED), ("sentiment_success", TEACHER_FORCED), ("sentiment_drawdown", TEACHER_FORCED)}
    assert {(metric.name, mode) for metric in METRICS.values() for mode in metric.modes} == set(BY_HAND) | elsewhere
    assert all(name == metric.name for name, metric in METRICS.items())


def test_figures_of_one_form():
    success, score = METRICS["edit_success"], METRICS["rome_score"]
    assert success.estimate(RECORDS, mode=GENERATED, form="paraphrase").value == pytest.approx(2 / 4)
    assert success.estimate(RECORDS, mode=GENERATED, form="neighbour") is None
    assert METRICS["drawdown"].estimate(RECORDS, mode=GENERATED, form="other").value == 0
    assert score.estimate(RECORDS, mode=GENERATED, form="paraphrase") is None


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_where_nothing_was_asked_there_is_no_figure(metric):
    unasked = [inside("a", "edit"), inside("a", "paraphrase"), inside("a", "composed"), outside("a")]
    for mode in metric.modes:
        assert metric.estimate(unasked, mode=mode) is None
        assert metric.estimate([], mode=mode) is None


def test_a_mode_that_a_metric_has_not_is_refused():
    with pytest.raises(ValueError, match="fluency exists generated only"):
        METRICS["fluency"].estimate(RECORDS, mode=TEACHER_FORCED)


def test_fluency_averages_within_cases_first():
    # 0 bits for what cannot vary; 5 different words: (2/3 * 2 + 4/3 * log2 3) / 2 bits.
    varied = (2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2
    records = [
        inside("a", "edit", "one two three four five"),
        inside("b", "edit", "one"),
        inside("b", "paraphrase", "one two three four five"),
        outside("b", after="not counted at all, is it"),
    ]
    estimate = METRICS["fluency"].estimate(records, mode=GENERATED)
    assert estimate.value == pytest.approx((varied + varied / 2) / 2)


def test_moods_are_averaged_over_probes():
    def replies(wished, opposite):
        scored = {"wished_before": (said(0.5),), "opposite_before": (said(0.5),)}
        return RepliesScored(wished_after=(said(wished),), opposite_after=(said(opposite),), **scored)

    records = [
        inside("a", "edit", target=None, replies=replies(0.5, 0.5)),  # 1/2 * 1
        inside("a", "paraphrase", target=None, replies=replies(0.25, 0.25)),  # 1/2 * 1/2
        inside("b", "edit", target=None, replies=replies(0.9, 0.1)),  # odds 9: 9/10 * 1
        outside("a", divergence=0.2),
        outside("a", divergence=0.3),
        outside("b", divergence=0.1),
    ]
    success = METRICS["sentiment_success"].estimate(records, mode=TEACHER_FORCED)
    assert success.value == pytest.approx((0.5 + 0.25 + 0.9) / 3)
    assert METRICS["sentiment_drawdown"].estimate(records, mode=TEACHER_FORCED).value == pytest.approx(0.2)
    assert METRICS["edit_success"].estimate(records, mode=TEACHER_FORCED) is None


def test_rome_s_figures_are_those_of_arrays():
    rng = random.Random(0)
    names = [f"case {number}" for number in range(12)]
    chance = lambda: rng.uniform(0.01, 0.99)  # noqa: E731
    edits = np.array([[chance(), chance()] for _ in names])
    paraphrases = np.array([[[chance(), chance()] for _ in range(2)] for _ in names])
    neighbours = np.array([[[chance(), chance()] for _ in range(10)] for _ in names])
    records = [inside(name, "edit", new=new, old=old) for name, (new, old) in zip(names, edits, strict=True)]
    for name, own, others in zip(names, paraphrases, neighbours, strict=True):
        records += [inside(name, "paraphrase", new=new, old=old) for new, old in own]
        records += [outside(name, new=new, old=old) for new, old in others]
    expected = {
        "efficacy": (edits[:, 0] > edits[:, 1]).mean(),
        "paraphrase": (paraphrases[..., 0] > paraphrases[..., 1]).mean(),
        "neighbourhood": (neighbours[..., 1] > neighbours[..., 0]).mean(),
        "efficacy_magnitude": -np.diff(edits).mean(),
        "paraphrase_magnitude": -np.diff(paraphrases).mean(),
        "neighbourhood_magnitude": np.diff(neighbours).mean(),
    }
    shares = [float(expected[name]) for name in ("efficacy", "paraphrase", "neighbourhood")]
    expected["rome_score"] = statistics.harmonic_mean(shares)
    found = {name: METRICS[name].estimate(records, mode=TEACHER_FORCED).value for name in expected}
    assert found == pytest.approx(expected)


def test_out_of_scope_probes_of_which_something_else_is_true_are_no_neighbours():
    records = [outside("a", target="Lima", after="Theresa", new=0.1, old=0.9), outside("a", "other", after="Theresa")]
    for mode in (GENERATED, TEACHER_FORCED):
        assert METRICS["neighbourhood"].estimate(records, mode=mode) is None


def test_a_neighbour_whose_truth_is_not_told_is_one():
    records = [outside("a", target=None, after="Theresa", new=0.1, old=0.9)]
    for mode in (GENERATED, TEACHER_FORCED):
        assert METRICS["neighbourhood"].estimate(records, mode=mode).value == 1


def test_a_tie_is_nobody_s():
    records = [inside("a", "edit", new=0.25, old=0.25), outside("a", new=0.25, old=0.25)]
    assert METRICS["efficacy"].estimate(records, mode=TEACHER_FORCED).value == 0
    assert METRICS["neighbourhood"].estimate(records, mode=TEACHER_FORCED).value == 0


def answered(always):
    """The records of a model that gives one answer to everything (or, with None, the base's own)."""
    forms = [("edit", True), ("paraphrase", True), ("composed", True), ("neighbour", False)]
    return [
        Record(
            case=case,
            form=form,
            in_scope=in_scope,
            prompt="?",
            target="Boris" if in_scope else "Theresa",
            previous="Theresa",
            before="Theresa",
            after=always or "Theresa",
            target_after=forced(always, "Boris") if in_scope else None,
            new_after=None if in_scope else forced(always, "Boris"),
            previous_after=forced(always, "Theresa"),
            kept=None if in_scope else forced(always, "Theresa"),
        )
        for case in "abc"
        for form, in_scope in forms
    ]


def forced(always, target):
    same = (always or "Theresa") == target
    return said(0.99 if same else 0.01, exact=same)


@pytest.mark.parametrize("mode", [GENERATED, TEACHER_FORCED])
def test_an_editor_that_answers_everything_with_the_target_breaks_everything_else(mode):
    scores = ("edit_success", "drawdown", "efficacy", "paraphrase", "neighbourhood", "rome_score", "portability")
    found = [METRICS[name].estimate(answered("Boris"), mode=mode).value for name in scores]
    assert found == [1, 1, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("mode", [GENERATED, TEACHER_FORCED])
def test_an_editor_that_changes_nothing_succeeds_at_nothing_and_breaks_nothing(mode):
    scores = ("edit_success", "drawdown", "efficacy", "paraphrase", "neighbourhood", "rome_score", "portability")
    found = [METRICS[name].estimate(answered(None), mode=mode).value for name in scores]
    assert found == [0, 0, 0, 0, 1, 0, 0]


def test_magnitudes_of_broken_editors():
    scores = ("efficacy_magnitude", "paraphrase_magnitude", "neighbourhood_magnitude")
    for always, expected in (("Boris", [0.98, 0.98, -0.98]), (None, [-0.98, -0.98, 0.98])):
        found = [METRICS[name].estimate(answered(always), mode=TEACHER_FORCED).value for name in scores]
        assert found == pytest.approx(expected)
