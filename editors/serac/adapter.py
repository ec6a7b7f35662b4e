"""What training adds to the encoder: low-rank changes of its linear layers, and the few tensors trained whole.

A file is one safetensors. For each linear layer of the encoder, `<layer>.a` [rank, in] and `<layer>.b` [out, rank],
with W' = W + b a (LoRA, Hu et al. 2021, eq. 3, with alpha = rank); beside them the layer norms, the segment embeddings
and the head as they are after training. The header holds the format's version, the encoder's fingerprint, the
calibration, and what is worth knowing about the training.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from editors.errors import EncoderMismatch, InvalidClassifierFile

_FORMAT = "errata scope cross-encoder"
_VERSION = 1
_TRAIN_AGAIN = "Restore the file, or train it again with `errata train scope`."
_INSIDE = ".parametrizations.weight.0."


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter:
    """A trained scope classifier, but for the encoder that it builds on.

    Attributes:
        tensors: By name, as the module's docstring says.
        encoder: Fingerprint of the encoder that it was trained on.
        width: Of that encoder.
        scale: beta = sigmoid(scale * logit + shift).
        shift: Added to the scaled logit.
        threshold: Beta at or above which an edit answers.
        floor: Cosine below which an input is out of scope without asking.
        card: What is worth knowing about the training, as JSON.
    """

    tensors: Mapping[str, Tensor]
    encoder: str
    width: int
    scale: float
    shift: float
    threshold: float
    floor: float
    card: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        header = {"version": _VERSION} | {name: getattr(self, name) for name in _HEADER}
        partial = path.with_name(f"{path.name}.partial")
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        # One entry of metadata, since several would stand in any order, and equal classifiers make equal files.
        partial.write_bytes(save(tensors, metadata={_FORMAT: json.dumps(header)}))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Adapter:
        """Read what `save` wrote.

        Raises:
            InvalidClassifierFile: The file is missing, damaged, of a later format, or holds something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = _header(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            return cls(tensors=tensors, **header)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InvalidClassifierFile(
                f"The scope classifier {path} cannot be read: {type(error).__name__}: {error}.", hint=_TRAIN_AGAIN
            ) from error

    def check_encoder(self, found: str, width: int) -> None:
        """See that it belongs to this encoder.

        Raises:
            EncoderMismatch: It belongs to another.
        """
        if (self.encoder, self.width) != (found, width):
            raise EncoderMismatch(
                f"The scope classifier was trained on encoder {self.encoder} ({self.width} wide); "
                f"this one is {found} ({width} wide).",
                hint="Install the encoder's package in the version that it was trained with, or train it again.",
            )


_HEADER: Mapping[str, type] = {
    "encoder": str,
    "width": int,
    "scale": float,
    "shift": float,
    "threshold": float,
    "floor": float,
    "card": dict,
}


def fingerprint(folder: Path) -> str:
    """Names an encoder by its weights and its tokenizer."""
    digest = hashlib.sha256()
    for file in ("model.safetensors", "tokenizer.json"):
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()[:16]


class LowRank(nn.Module):
    """W -> W + b a, where b starts at zero, so that training starts from the encoder as it is.

    Args:
        shape: Of W, [out, in].
        rank: Of the change.
        generator: Draws a.
    """

    def __init__(self, shape: torch.Size, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        out_features, in_features = shape
        bound = 1 / math.sqrt(in_features)
        self.a = nn.Parameter((2 * torch.rand(rank, in_features, generator=generator) - 1) * bound)
        self.b = nn.Parameter(torch.zeros(out_features, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, [out, in]."""
        return weight + self.b @ self.a


def make_trainable(model: nn.Module, *, rank: int, generator: torch.Generator) -> None:
    """Let the adapter's tensors be trained and nothing else; draws those that do not come from the encoder.

    The weight of a layer is W + b a as a whole, computed once a batch: with ranks this near the layers' own sizes
    that takes fewer and larger products than a branch beside each layer.

    Args:
        model: A module with `encoder` and `head`.
        rank: Of the changes.
        generator: Draws a, and the head.
    """
    model.requires_grad_(requires_grad=False)
    for name, layer in _linear_layers(model):
        if name.startswith("head."):
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.zeros_(layer.bias)
        else:
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight.shape, rank, generator))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_INSIDE in name or _is_whole(name))


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the adapter in a model that `make_trainable` prepared, under the names of the file."""
    return {
        name.replace(_INSIDE, "."): parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def begin_with(adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Write the adapter into the tensors of a model that `make_trainable` prepared.

    Raises:
        InvalidClassifierFile: Its tensors have other names or shapes.
    """
    shapes, own = ({name: list(t.shape) for name, t in some.items()} for some in (adapter.tensors, tensors))
    if differing := sorted(name for name in {*shapes, *own} if shapes.get(name) != own.get(name)):
        name = differing[0]
        raise InvalidClassifierFile(
            f"Training cannot go on from this classifier: its {name} is {shapes.get(name)}, "
            f"and with this rank it should be {own.get(name)}.",
            hint="Give the rank that it was trained with, which its card names.",
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(adapter.tensors[name])


def merge(adapter: Adapter, model: nn.Module) -> None:
    """Write the adapter into the weights of a model that nothing else uses.

    Raises:
        InvalidClassifierFile: A tensor is missing, unknown, not finite, or of the wrong shape.
    """
    try:
        with torch.no_grad():
            _merge(dict(adapter.tensors), model)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InvalidClassifierFile(
            f"The scope classifier does not fit its encoder: {type(error).__name__}: {error}.", hint=_TRAIN_AGAIN
        ) from error


def _merge(tensors: dict[str, Tensor], model: nn.Module) -> None:
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{broken[0]} is not finite")
    for name, layer in _linear_layers(model):
        if not name.startswith("head."):
            layer.weight += tensors.pop(f"{name}.b").float() @ tensors.pop(f"{name}.a").float()
    for name, parameter in model.named_parameters():
        if _is_whole(name):
            parameter.copy_(_shaped(tensors.pop(name), parameter.shape))
    if tensors:
        raise ValueError(f"it holds tensors that the model lacks, such as {min(tensors)}")


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that a logit depends on, in a fixed order."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and ".pooler." not in name:
            yield name, module


def _is_whole(name: str) -> bool:
    """Whether a parameter is trained and kept whole."""
    return name.startswith("head.") or "LayerNorm" in name or "token_type_embeddings" in name


def _shaped(tensor: Tensor, shape: torch.Size) -> Tensor:
    if tensor.shape != shape:
        raise ValueError(f"a tensor is {list(tensor.shape)}, and should be {list(shape)}")
    return tensor


def _header(metadata: Mapping[str, str]) -> dict[str, Any]:
    if _FORMAT not in metadata:
        raise ValueError(f"it is no {_FORMAT}")
    read = json.loads(metadata[_FORMAT])
    if read["version"] != _VERSION:
        raise ValueError(f"its format has version {read['version']}; version {_VERSION} is needed")
    header = {name: kind(read[name]) for name, kind in _HEADER.items()}
    if (
        not all(math.isfinite(header[name]) for name in ("scale", "shift", "floor"))
        or not 0 <= header["threshold"] <= 1
    ):
        raise ValueError("scale, shift and floor must be finite, and threshold in [0, 1]")
    return header
