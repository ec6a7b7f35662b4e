"""From a score to a probability, and from probabilities to a threshold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_MAX_STEPS = 100
_RIDGE = 1e-12
"""Added to the Hessian's diagonal, as Lin et al. do, so that it can always be inverted."""


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-logit)) of each number; overflows nowhere."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)


def platt(x: NDArray[np.float64], y: NDArray[np.bool_]) -> tuple[float, float]:
    """Scale and shift such that sigmoid(scale * x + shift) is the probability of y (Platt 1999).

    By Newton's method with a line search (Lin, Lin & Weng 2007, a note on Platt's outputs). Platt's targets,
    (N+ + 1) / (N+ + 2) and 1 / (N- + 2), keep the fit finite when the classes do not overlap.

    Args:
        x: Scores, [n].
        y: Labels, [n], with both classes.
    """
    positives, negatives = int(y.sum()), int((~y).sum())
    targets = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)  # [n, 2]
    weights = np.array([0.0, math.log((positives + 1) / (negatives + 1))])
    loss = _cross_entropy(design @ weights, targets)
    for _ in range(_MAX_STEPS):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - targets)
        if np.abs(gradient).max() < 1e-9 * len(x):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + _RIDGE * np.eye(2)
        direction = np.linalg.solve(hessian, gradient)
        step = 1.0
        while step > 1e-10 and (new := _cross_entropy(design @ (weights - step * direction), targets)) >= loss:
            step /= 2
        if step <= 1e-10:
            break
        weights, loss = weights - step * direction, new
    return float(weights[0]), float(weights[1])


def lowest_threshold(betas: NDArray[np.float64], y: NDArray[np.bool_], false_positives: float) -> float:
    """The lowest threshold that at most a share of the negatives reach.

    It lies midway between the highest beta that must stay below it and the next higher one.

    Args:
        betas: Probabilities, [n].
        y: Labels, [n], with both classes.
        false_positives: The share, in [0, 1).
    """
    negatives = np.sort(betas[~y])[::-1]
    barrier = negatives[math.floor(false_positives * len(negatives))]
    above = betas[betas > barrier]
    return float((barrier + (above.min() if above.size else 1.0)) / 2)


def _cross_entropy(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return float((np.logaddexp(0.0, logits) - targets * logits).sum())
