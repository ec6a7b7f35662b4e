from __future__ import annotations

import json
import math

import numpy as np
import pytest

from editors.edit import Statement
from editors.errors import InvalidClassifierFile
from editors.serac.scope import ScopePair, SimilarityScope


def betas(scope, *similarities):
    return scope.beta(
        [ScopePair(descriptor=Statement("s"), matched_text="s", text="t", similarity=s) for s in similarities]
    )


def drawn(scale, shift, n=4000):
    """Similarities, and labels drawn with probability sigmoid(scale * similarity + shift)."""
    random = np.random.default_rng(0)
    similarities = random.uniform(0, 1, n)
    labels = random.uniform(0, 1, n) < 1 / (1 + np.exp(-(scale * similarities + shift)))
    return similarities.tolist(), labels.tolist()


def test_beta_is_the_sigmoid_of_the_scaled_cosine():
    scope = SimilarityScope(scale=10.0, shift=-7.0, threshold=0.5, chosen="by hand")
    assert betas(scope, 0.7, 0.8, -1.0) == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(17))])
    assert betas(scope) == []


def test_beta_stays_a_probability_however_steep_the_scale():
    scope = SimilarityScope(scale=1e6, shift=0.0, threshold=0.5, chosen="by hand")
    assert betas(scope, -1.0, 1.0) == [0.0, 1.0]


def test_a_fit_recovers_the_probabilities_that_labels_were_drawn_with():
    scope = SimilarityScope.fit(*drawn(scale=12.0, shift=-8.0))
    assert scope.scale == pytest.approx(12.0, rel=0.1)
    assert scope.shift == pytest.approx(-8.0, rel=0.1)


def test_a_fit_is_where_no_small_step_lowers_the_loss():
    similarities, labels = drawn(scale=6.0, shift=-2.0, n=50)
    fitted = SimilarityScope.fit(similarities, labels)
    positives = sum(labels)
    high, low = (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)

    def loss(scale, shift):
        scope = SimilarityScope(scale=scale, shift=shift, threshold=0.5, chosen="")
        targets = [high if label else low for label in labels]
        return -sum(
            t * math.log(b) + (1 - t) * math.log(1 - b)
            for t, b in zip(targets, betas(scope, *similarities), strict=True)
        )

    least = loss(fitted.scale, fitted.shift)
    for scale_step, shift_step in [(0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)]:
        assert loss(fitted.scale + scale_step, fitted.shift + shift_step) > least


def test_classes_that_do_not_overlap_give_a_finite_fit_that_separates_them():
    scope = SimilarityScope.fit([0.1, 0.2, 0.3, 0.8, 0.9], [False, False, False, True, True])
    assert math.isfinite(scope.scale)
    below, above = betas(scope, 0.3, 0.8)
    assert below < scope.threshold <= above


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
def test_the_threshold_is_the_lowest_that_keeps_to_the_share_of_false_positives(share):
    similarities, labels = drawn(scale=8.0, shift=-5.0)
    scope = SimilarityScope.fit(similarities, labels, false_positives=share)
    negatives = np.array(betas(scope, *(s for s, label in zip(similarities, labels, strict=True) if not label)))
    passing = (negatives >= scope.threshold).sum()
    assert passing <= share * len(negatives) < passing + 1
    assert f"{share:.2%}" in scope.chosen


def test_with_no_false_positive_allowed_and_nothing_above_the_negatives_the_threshold_still_stops_them():
    scope = SimilarityScope.fit([0.2, 0.9, 0.95], [False, True, False], false_positives=0.0)
    assert max(betas(scope, 0.2, 0.95)) < scope.threshold < 1


@pytest.mark.parametrize(
    ("similarities", "labels"),
    [([0.1, 0.2], [True, True]), ([0.1, 0.2], [False, False]), ([0.1], [True, False]), ([], [])],
)
def test_a_fit_needs_both_classes_and_a_label_for_each(similarities, labels):
    with pytest.raises(ValueError, match="one label for each"):
        SimilarityScope.fit(similarities, labels)


def test_a_share_of_false_positives_out_of_range_is_refused():
    with pytest.raises(ValueError, match="false_positives is 1"):
        SimilarityScope.fit([0.1, 0.9], [False, True], false_positives=1)


def test_saving_and_loading_gives_the_same_classifier(tmp_path):
    scope = SimilarityScope.fit(*drawn(scale=12.0, shift=-8.0))
    scope.save(tmp_path / "scope.json")
    assert SimilarityScope.load(tmp_path / "scope.json") == scope


GOOD = {"kind": "similarity", "scale": 1.0, "shift": 0.0, "threshold": 0.5, "chosen": "by hand"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "\udcff",
        json.dumps(GOOD | {"kind": "cross"}),
        json.dumps(GOOD | {"scale": "steep"}),
        json.dumps(GOOD | {"scale": None}),
        json.dumps(GOOD | {"shift": float("nan")}),
        json.dumps(GOOD | {"threshold": 1.5}),
        json.dumps({key: value for key, value in GOOD.items() if key != "shift"}),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "scope.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InvalidClassifierFile, match=r"scope\.json") as caught:
        SimilarityScope.load(path)
    assert "train" in caught.value.hint


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidClassifierFile, match=r"absent\.json"):
        SimilarityScope.load(tmp_path / "absent.json")
