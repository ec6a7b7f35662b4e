"""Calibrate the similarity scope classifier: `python -m demo.calibrate`.

Edits are facts that have not drifted, so that the drift set stays unseen; the inputs are what an operator's service
sees: paraphrases (in scope), and questions on other facts (out of scope). An out-of-scope question is paired with the
edit that retrieval would bring up for it, the nearest of many, since those are the pairs the classifier has to judge.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from demo import SIMILARITY
from demo.facts import Fact, load_world
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import SimilarityScope

FALSE_POSITIVES = 0.005
"""Largest share of the out-of-scope pairs that may reach the threshold."""


def main() -> None:
    """Fit, print what the threshold costs, and write the classifier."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=SIMILARITY)
    arguments = parser.parse_args()
    similarities, labels = pairs(arguments.edits, SentenceEncoder(), Random(11))
    scope = SimilarityScope.fit(list(similarities), list(labels), false_positives=FALSE_POSITIVES)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    scope.save(arguments.output)
    cosine = (np.log(scope.threshold / (1 - scope.threshold)) - scope.shift) / scope.scale
    accepted = similarities >= cosine
    print(f"beta = sigmoid({scope.scale:.2f} * cosine {scope.shift:+.2f})")
    print(f"threshold {scope.threshold:.3f}, which is cosine {cosine:.3f}")
    print(f"in scope: {accepted[labels].mean():.3f} of {labels.sum()} accepted")
    print(f"out of scope: {accepted[~labels].mean():.3f} of {(~labels).sum()} accepted")


def pairs(edits: int, encoder: SentenceEncoder, rng: Random) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cosines and labels: a paraphrase of each edit, and as many questions on other facts with their nearest edit."""
    world = load_world()
    drifted = {id(drift.fact) for drift in world.drift}
    stable = [fact for fact in world.facts if id(fact) not in drifted]
    edited = rng.sample(stable, edits)
    chosen = {id(fact) for fact in edited}
    others = rng.sample([fact for fact in stable if id(fact) not in chosen], edits)
    told = encoder.encode([fact.prompts[0] for fact in edited])
    asked = encoder.encode([_question(fact, rng) for fact in edited])
    outside = encoder.encode([_question(fact, rng) for fact in others])
    inside = np.sum(told * asked, axis=1)
    return np.concatenate([inside, (outside @ told.T).max(axis=1)]).astype(float), np.arange(2 * edits) < edits


def _question(fact: Fact, rng: Random) -> str:
    return rng.choice((*fact.prompts[1:], *fact.held_out_prompts))


if __name__ == "__main__":
    main()
