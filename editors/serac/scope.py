"""The scope classifier beta: how likely an input is in the scope of an edit (Mitchell et al. 2022, sec. 3).

Retrieval leaves a few pairs in doubt; a classifier judges those. `SimilarityScope` judges by the retrieval's own
cosine; `CrossEncoderScope` asks a model that reads both texts.
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
from editors.serac.calibration import lowest_threshold, platt, sigmoid

_KIND = "similarity"


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


class PairScorer(Protocol):
    """A model that reads two texts together."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """The probability, [len(pairs)], that the second text of each pair is in the scope of the first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderScope:
    """beta = g(z, x), asked only where the cosine leaves room for doubt.

    An operator's in-scope example says what the edit is about as the descriptor does: where it is nearer to the input
    than the descriptor's own text, both are asked and the higher probability counts.

    Attributes:
        scorer: Reads descriptor and input together.
        floor: Cosine below which an input is out of scope (beta 0) without asking.
        threshold: Beta at or above which an edit answers.
    """

    scorer: PairScorer
    floor: float
    threshold: float

    def beta(self, pairs: Sequence[ScopePair]) -> list[float]:
        """The probability that each pair's input is in its edit's scope; all doubtful pairs are scored in one call."""
        doubtful = [i for i, pair in enumerate(pairs) if pair.similarity >= self.floor]
        asked = [(i, z) for i in doubtful for z in dict.fromkeys((pairs[i].descriptor.text, pairs[i].matched_text))]
        betas = np.zeros(len(pairs))
        if asked:
            scores = self.scorer.score([(z, pairs[i].text) for i, z in asked])
            np.maximum.at(betas, [i for i, _ in asked], scores)
        return [float(beta) for beta in betas]


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
        similarities = np.array([pair.similarity for pair in pairs], dtype=np.float64)
        return [float(beta) for beta in sigmoid(self.scale * similarities + self.shift)]

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
        scale, shift = platt(x, y)
        return cls(
            scale=scale,
            shift=shift,
            threshold=lowest_threshold(sigmoid(scale * x + shift), y, false_positives),
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
