"""The second moment of keys, C = E[k k^T], over a text corpus (Meng et al. 2022, eq. 2 and app. E.5).

Collecting takes long, so it shows its progress, goes on where it was interrupted, and is kept under everything that it
depends on. Sums are in float32 or float64 whatever the model's dtype.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from editors.errors import StatisticsNotFound
from editors.model.loading import BaseModel
from editors.model.views import view
from editors.surgery.batch import Batch
from editors.surgery.trace import captured, ending_at

_SUFFIX = ".covariance.safetensors"
_UNFINISHED = ".unfinished"
_FORMAT = "errata-covariance-2"
_TEXTS_PER_BATCH = 16
_BATCHES_PER_CHECKPOINT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class CovarianceKey:
    """Everything that a covariance depends on.

    Attributes:
        model: The base's fingerprint.
        model_dtype: What the base computes in.
        site: Path of the module whose input the keys are.
        corpus: Hash of the texts, in order.
        sample: How many of the texts were read.
        seed: Of the sample's draw.
        dtype: What the sums are in.
    """

    model: str
    model_dtype: str
    site: str
    corpus: str
    sample: int
    seed: int
    dtype: str

    @property
    def file(self) -> str:
        """A file name for it: readable at its start, unique by its hash."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.model[:8]}-{self.site}-{digest[:16]}{_SUFFIX}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyCovariance:
    """C of one module of one model.

    Attributes:
        key: What it depends on.
        total: Sum of k k^T over the keys, [in, in].
        keys: How many keys were summed: one for each token.
    """

    key: CovarianceKey
    total: Tensor
    keys: int

    @property
    def second_moment(self) -> Tensor:
        """C, [in, in], in float64."""
        return self.total.double() / self.keys

    def factor(self, ridge: float) -> Tensor:
        """The lower Cholesky factor of C + ridge * mean(diag C) * I, [in, in], in float64, for `torch.cholesky_solve`.

        Args:
            ridge: Keeps C invertible where fewer independent keys were read than C has rows; relative, so that one
                value serves every model.

        Raises:
            ValueError: C is singular, and the ridge too small to help.
        """
        c = self.second_moment
        c += ridge * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(c)
        if failed:
            raise ValueError(f"the key covariance of {self.key.site} is singular with a ridge of {ridge}; raise it")
        return factor


def collect(
    base: BaseModel,
    site: str,
    texts: Sequence[str],
    *,
    folder: Path,
    sample: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> KeyCovariance:
    """Sum k k^T over the tokens of texts, or take the sum from its file when it was made before.

    Texts are cut at the context's length. An interrupted run goes on from its last checkpoint.

    Args:
        base: The model; only read, through a view.
        site: Path of a linear module, such as `anatomy.within(layer, anatomy.mlp_out)`.
        texts: The corpus.
        folder: Where the result and its checkpoints lie; made if missing.
        sample: How many of the texts to read, drawn at random; all when None.
        seed: Of that draw.
        dtype: Of the sums: float32 or float64.
        progress: Whether to show a bar.

    Raises:
        ValueError: There are no texts that hold anything, or fewer than the sample.
    """
    texts = [text for text in texts if text.strip()]
    chosen = _sample(texts, sample, seed)
    key = CovarianceKey(
        model=base.fingerprint,
        model_dtype=str(base.dtype),
        site=site,
        corpus=_corpus_hash(texts),
        sample=len(chosen),
        seed=seed,
        dtype=str(dtype),
    )
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / key.file
    if done.exists():
        return load(done)
    unfinished = done.with_name(done.name + _UNFINISHED)
    _write(done, _summed(base, key, chosen, unfinished, dtype=dtype, progress=progress))
    unfinished.unlink(missing_ok=True)
    return load(done)


def load(path: Path) -> KeyCovariance:
    """Read a covariance's file.

    Raises:
        StatisticsNotFound: It is missing, damaged, or of another format.
    """
    try:
        return _read(path)[0]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StatisticsNotFound(
            f"The key statistics {path} cannot be read: {type(error).__name__}: {error}.",
            hint="Delete the file and run `errata stats` again.",
        ) from error


def find(base: BaseModel, site: str, folders: Sequence[Path]) -> KeyCovariance:
    """The covariance of this base at this site that was made from most keys, wherever it lies.

    Raises:
        StatisticsNotFound: There is none, though there may be one of another model or site; or its file is damaged.
    """
    files = sorted(file for folder in folders for file in folder.glob(f"{base.fingerprint[:8]}-{site}-*{_SUFFIX}"))
    fitting = [c for c in map(load, files) if (c.key.model, c.key.site) == (base.fingerprint, site)]
    if not fitting:
        raise StatisticsNotFound(
            f"There are no key statistics of {base.name} at {site}.",
            hint="Run `errata stats` for this model and layer; those of another model or layer do not fit.",
        )
    return max(fitting, key=lambda covariance: covariance.keys)


def _summed(
    base: BaseModel, key: CovarianceKey, texts: Sequence[str], checkpoint: Path, *, dtype: torch.dtype, progress: bool
) -> KeyCovariance:
    total, keys, start = _resumed(base, key, checkpoint, dtype)
    model = view(base.model)
    with tqdm(total=len(texts), initial=start, desc=key.site, unit="text", disable=not progress) as bar:
        for n, first in enumerate(range(start, len(texts), _TEXTS_PER_BATCH), start=1):
            group = texts[first : first + _TEXTS_PER_BATCH]
            k = _keys(base, model, key.site, group).to(dtype)
            total, keys = total + k.T @ k, keys + len(k)
            bar.update(len(group))
            if n % _BATCHES_PER_CHECKPOINT == 0:
                _write(checkpoint, KeyCovariance(key=key, total=total, keys=keys), read=first + len(group))
    return KeyCovariance(key=key, total=total.cpu(), keys=keys)


def _resumed(base: BaseModel, key: CovarianceKey, checkpoint: Path, dtype: torch.dtype) -> tuple[Tensor, int, int]:
    """The sum so far, its keys, and how many texts were read; a checkpoint that cannot be read is begun again."""
    weight = f"{key.site}.weight"
    width = base.anatomy.oriented(weight, base.model.get_parameter(weight)).shape[1]
    nothing = torch.zeros(width, width, dtype=dtype, device=base.device), 0, 0
    if not checkpoint.exists():
        return nothing
    try:
        summed, read = _read(checkpoint)
    except (SafetensorError, ValueError, KeyError, TypeError):
        return nothing
    return summed.total.to(base.device), summed.keys, read


@torch.no_grad()
def _keys(base: BaseModel, model: PreTrainedModel, site: str, texts: Sequence[str]) -> Tensor:
    """What the module reads at every token of the texts: [tokens, in], in the model's dtype."""
    batch = Batch.of(base, [base.tokenizer(text)["input_ids"][: base.context_length] for text in texts])
    with captured(model, site, batch.occupied) as seen, ending_at(model, site):
        batch.run(model)
    return seen.input


def _sample(texts: Sequence[str], sample: int | None, seed: int) -> list[str]:
    if not texts or (sample is not None and not 0 < sample <= len(texts)):
        raise ValueError(f"a sample of {sample} cannot be drawn from {len(texts)} texts")
    return list(texts) if sample is None else Random(seed).sample(list(texts), sample)


def _corpus_hash(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _write(path: Path, covariance: KeyCovariance, *, read: int | None = None) -> None:
    """Write a file in one step, so that an interruption leaves the old one or the new one."""
    header = {
        "format": _FORMAT,
        "key": json.dumps(asdict(covariance.key)),
        "keys": str(covariance.keys),
        "read": str(covariance.key.sample if read is None else read),
    }
    partial = path.with_name(path.name + ".writing")
    rows, columns = torch.tril_indices(*covariance.total.shape)  # of a symmetric matrix, half says all
    save_file({"lower": covariance.total.cpu()[rows, columns]}, partial, metadata=header)
    partial.replace(path)


def _read(path: Path) -> tuple[KeyCovariance, int]:
    """A covariance, and how many texts were read for it."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if header["format"] != _FORMAT:
            raise ValueError(f"its format is {header['format']!r}, not {_FORMAT!r}")
        key = CovarianceKey(**json.loads(header["key"]))
        total = _symmetric(file.get_tensor("lower"))
        return KeyCovariance(key=key, total=total, keys=int(header["keys"])), int(header["read"])


def _symmetric(lower: Tensor) -> Tensor:
    """The symmetric matrix [n, n] of a lower triangle, row by row: [n (n + 1) / 2]."""
    width = (math.isqrt(8 * len(lower) + 1) - 1) // 2
    rows, columns = torch.tril_indices(width, width)
    whole = torch.empty(width, width, dtype=lower.dtype)
    whole[rows, columns] = whole[columns, rows] = lower
    return whole
