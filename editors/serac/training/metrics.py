"""How well probabilities separate in-scope from out-of-scope, and how far they can be believed.

Everywhere `betas` are probabilities [n] and `labels` booleans [n] with both classes among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editors.serac.calibration import lowest_threshold

FALSE_POSITIVES = (0.001, 0.01, 0.05)
"""Shares of the out-of-scope pairs at which recall is reported."""
_BINS = 15

Betas = NDArray[np.float64]
Labels = NDArray[np.bool_]


def calibration_error(betas: Betas, labels: Labels) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, eq. 3)."""
    bins = np.minimum((betas * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, weights=betas - labels, minlength=_BINS)  # n_b * (confidence - accuracy) of each bin
    return float(np.abs(gaps).sum() / len(betas))


def area_under_curve(betas: Betas, labels: Labels) -> float:
    """Area under the ROC curve: how often an in-scope pair has the higher beta; a tie counts half."""
    inside, outside = betas[labels], np.sort(betas[~labels])
    below = np.searchsorted(outside, inside, side="left") + np.searchsorted(outside, inside, side="right")
    return float(below.mean() / 2 / len(outside))


def average_precision(betas: Betas, labels: Labels) -> float:
    """Mean over the in-scope pairs of the precision among all that have their beta or a higher one."""
    inside, everything = np.sort(betas[labels]), np.sort(betas)
    reached = len(everything) - np.searchsorted(everything, inside, side="left")
    true = len(inside) - np.searchsorted(inside, inside, side="left")
    return float((true / reached).mean())


def measure(betas: Betas, labels: Labels, kinds: Sequence[str]) -> dict[str, Any]:
    """Everything that is reported.

    Recall at a share of false positives has its threshold from all pairs together, as in use. At those thresholds
    `by_kind` gives the share accepted of each kind of pair: recall where they are in scope, false positives where not.
    """
    names = np.asarray(kinds)
    thresholds = [lowest_threshold(betas, labels, share) for share in FALSE_POSITIVES]
    sides = {
        (kind, inside): (names == kind) & (labels == inside) for kind in sorted(set(kinds)) for inside in (True, False)
    }
    return {
        "pairs": len(labels),
        "in_scope": int(labels.sum()),
        "area_under_curve": area_under_curve(betas, labels),
        "average_precision": average_precision(betas, labels),
        "calibration_error": calibration_error(betas, labels),
        "recall_at_false_positives": _accepted(betas[labels], thresholds),
        "by_kind": [
            {
                "kind": kind,
                "in_scope": inside,
                "pairs": int(chosen.sum()),
                "accepted": _accepted(betas[chosen], thresholds),
            }
            for (kind, inside), chosen in sides.items()
            if chosen.any()
        ],
    }


def _accepted(betas: Betas, thresholds: Sequence[float]) -> dict[str, float]:
    return {
        str(share): float((betas >= threshold).mean())
        for share, threshold in zip(FALSE_POSITIVES, thresholds, strict=True)
    }
