"""The scope classifier beta: how likely an input is in the scope of an edit (Mitchell et al. 2022, sec. 3).

Retrieval leaves a few pairs in doubt; a classifier judges those. `SimilarityScope` judges by the retrieval's own
cosine; a cross-encoder that reads both texts fills the same protocol.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from editors.edit import EditDescriptor
from editors.errors import InvalidClassifierFile

_KIND = "similarity"
_MAX_STEPS = 100
_RIDGE = 1e-12
"""Added to the Hessian's diagonal, as Lin et al. do, so that it can always be inverted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopePair:
    """An edit and an input that it may or may not concern.

    Attributes:
        descriptor: The edit.
        matched_text: Its in-scope text that is nearest to the input.
        text: The input.
        similarity: Cosine between these two texts.
    """

    descriptor: EditDescriptor
    matched_text: str
    text: str
    similarity: float


class ScopeClassifier(Protocol):
    """Judges pairs of edit and input."""

    @property
    def threshold(self) -> float:
        """Beta at or above which an edit answers, unless the edit or the caller says otherwise."""
        ...

    def beta(self, pairs: Sequence[ScopePair]) -> list[float]:
        """The probability, in [0, 1], that each pair's input is in its edit's scope."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityScope:
    """beta = sigmoid(scale * cosine + shift): Platt scaling of the retrieval's similarity (Platt 1999).

    Attributes:
        scale: Per unit of cosine.
        shift: Added to it.
        threshold: Beta at or above which an edit answers.
        chosen: How the threshold was chosen, in words.
    """

    scale: float
    shift: float
    threshold: float
    chosen: str

    def beta(self, pairs: Sequence[ScopePair]) -> list[float]:
        """The probability that each pair's input is in its edit's scope; of the pair only the cosine counts."""
        return [_sigmoid(self.scale * pair.similarity + self.shift) for pair in pairs]

    @classmethod
    def fit(
        cls, similarities: Sequence[float], labels: Sequence[bool], *, false_positives: float = 0.01
    ) -> SimilarityScope:
        """Fit scale and shift, and choose the lowest threshold that keeps false positives down.

        Args:
            similarities: Cosine of each pair of edit and input.
            labels: Whether the input is in scope.
            false_positives: The largest share of the out-of-scope pairs that may reach the threshold, in [0, 1).

        Raises:
            ValueError: The lengths differ, one class is missing, or the share is out of range.
        """
        x = np.asarray(similarities, dtype=np.float64)
        y = np.asarray(labels, dtype=bool)
        if x.shape != y.shape or y.all() or not y.any():
            raise ValueError("fitting needs one label for each similarity, and pairs both in and out of scope")
        if not 0 <= false_positives < 1:
            raise ValueError(f"false_positives is {false_positives}; it must be in [0, 1)")
        scale, shift = _platt(x, y)
        betas = np.array([_sigmoid(scale * s + shift) for s in x])
        return cls(
            scale=scale,
            shift=shift,
            threshold=_threshold(betas, y, false_positives),
            chosen=f"reached by at most {false_positives:.2%} of {int((~y).sum())} out-of-scope pairs",
        )

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({"kind": _KIND, **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> SimilarityScope:
        """Read what `save` wrote.

        Raises:
            InvalidClassifierFile: The file is missing, damaged, or holds another kind of classifier.
        """
        try:
            return _parse(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidClassifierFile(
                f"The scope classifier {path} cannot be read: {type(error).__name__}: {error}.",
                hint="Restore the file, or train the classifier again.",
            ) from error


def _parse(saved: dict[str, Any]) -> SimilarityScope:
    if saved["kind"] != _KIND:
        raise ValueError(f"it is of kind {saved['kind']!r}, not {_KIND!r}")
    scope = SimilarityScope(
        scale=float(saved["scale"]),
        shift=float(saved["shift"]),
        threshold=float(saved["threshold"]),
        chosen=str(saved["chosen"]),
    )
    if not (math.isfinite(scope.scale) and math.isfinite(scope.shift) and 0 <= scope.threshold <= 1):
        raise ValueError("scale and shift must be finite, and threshold in [0, 1]")
    return scope


def _sigmoid(logit: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * logit))  # overflows nowhere


def _platt(x: NDArray[np.float64], y: NDArray[np.bool_]) -> tuple[float, float]:
    """Scale and shift by Newton's method with a line search (Lin, Lin & Weng 2007, a note on Platt's outputs).

    Platt's targets, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), keep the fit finite when the classes do not overlap.
    """
    positives, negatives = int(y.sum()), int((~y).sum())
    targets = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)  # [n, 2]
    weights = np.array([0.0, math.log((positives + 1) / (negatives + 1))])
    loss = _cross_entropy(design @ weights, targets)
    for _ in range(_MAX_STEPS):
        p = 0.5 * (1.0 + np.tanh(0.5 * (design @ weights)))
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


def _cross_entropy(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return float((np.logaddexp(0.0, logits) - targets * logits).sum())


def _threshold(betas: NDArray[np.float64], y: NDArray[np.bool_], false_positives: float) -> float:
    """Midway between the highest beta that must stay below the threshold and the next higher one."""
    negatives = np.sort(betas[~y])[::-1]
    barrier = negatives[math.floor(false_positives * len(negatives))]
    above = betas[betas > barrier]
    return float((barrier + (above.min() if above.size else 1.0)) / 2)
