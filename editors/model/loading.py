"""Loading the base model, p_theta: frozen from the first moment, and nameable by what it holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from editors.errors import DeviceUnavailable, ModelNotFound
from editors.model.anatomy import Anatomy, anatomy_of

_WHAT_TO_GIVE = "Give a Hugging Face id, or a folder that holds config.json, the weights and the tokenizer."
_INCIDENTAL = ("_name_or_path", "transformers_version", "dtype")
"""Config entries that say where a checkpoint came from, or how it is held, and nothing about what it computes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BaseModel:
    """A causal language model and its tokenizer. Nothing ever writes to its tensors.

    Attributes:
        name: Its Hugging Face id, or the name of its folder.
        model: In eval mode, no parameter requiring a gradient.
        tokenizer: With a padding token, and padding on the left as generation needs.
        context_length: Most tokens that prompt and answer may have together.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    context_length: int

    @property
    def anatomy(self) -> Anatomy:
        """Where its parts are.

        Raises:
            UnknownArchitecture: It can be served, but weight editing does not know it.
        """
        return anatomy_of(self.model.config)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over config and tensors, in hex; reads every tensor the first time it is asked for.

        Numbers are hashed as float32, so a half-precision checkpoint has the same fingerprint on the CPU, where it is
        widened, as on a GPU, where it is not.
        """
        config = {key: value for key, value in self.model.config.to_diff_dict().items() if key not in _INCIDENTAL}
        text = json.dumps(config, sort_keys=True, default=str) + tensor_hash(self.model, widened=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_base(name_or_path: str | Path, *, device: str = "auto", dtype: str = "auto") -> BaseModel:
    """Load a causal language model.

    Args:
        name_or_path: A folder, or a Hugging Face id.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes a GPU when there is one.
        dtype: `float32`, `bfloat16` or `float16`; `auto` is float32 on CPU and the checkpoint's own on a GPU.

    Raises:
        ModelNotFound: There is no usable causal language model under that name.
        DeviceUnavailable: This machine has no such device.
        ValueError: The dtype is none of these.
    """
    return _load(name_or_path, device=device, dtype=dtype, reads_with_encoder=False)


def load_counterfactual(name_or_path: str | Path, *, device: str = "auto", dtype: str = "auto") -> BaseModel:
    """Load a model to answer in-scope prompts with: causal, or with an encoder that reads and a decoder that writes.

    Args:
        name_or_path: A folder, or a Hugging Face id.
        device: As for `load_base`.
        dtype: As for `load_base`.

    Raises:
        ModelNotFound: There is no usable model under that name.
        DeviceUnavailable: This machine has no such device.
        ValueError: The dtype is not known.
    """
    return _load(name_or_path, device=device, dtype=dtype, reads_with_encoder=True)


def _load(name_or_path: str | Path, *, device: str, dtype: str, reads_with_encoder: bool) -> BaseModel:
    where = resolve_device(device)
    folder = _folder(str(name_or_path))
    name, source = (folder.resolve().name, str(folder)) if folder else (str(name_or_path), str(name_or_path))
    config = _config(source, is_folder=folder is not None)
    kind: Any = AutoModelForSeq2SeqLM if reads_with_encoder and config.is_encoder_decoder else AutoModelForCausalLM
    model = _model(source, kind, dtype=_dtype(dtype, where), device=where)
    tokenizer = _tokenizer(source)
    model.generation_config = _tokens_only(model.generation_config, tokenizer)
    return BaseModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        device=where,
        dtype=model.dtype,
        context_length=_context_length(config, tokenizer),
    )


def tensor_hash(model: nn.Module, *, widened: bool = False) -> str:
    """SHA-256, in hex, over the name, dtype, shape and bytes of every parameter and buffer; any change changes it.

    Args:
        model: Whose.
        widened: Hash floats as float32, whatever their dtype, so that widening them changes nothing.
    """
    digest = hashlib.sha256()
    for name, held in (*model.named_parameters(), *model.named_buffers()):
        tensor = held.float() if widened and held.is_floating_point() else held
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def resolve_device(asked: str) -> torch.device:
    """The device of that name; `auto` takes a GPU when there is one.

    Raises:
        DeviceUnavailable: This machine has no such device.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # torch built without CUDA asserts
        raise DeviceUnavailable(
            f"The device {asked!r} cannot be used: {_first_line(error)}.", hint="Ask for auto, cpu, cuda or cuda:1."
        ) from error
    return device


def _dtype(asked: str, device: torch.device) -> torch.dtype | str:
    if asked == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(asked)
    if dtype is None:
        raise ValueError(f"dtype is {asked!r}; it must be auto, float32, bfloat16 or float16")
    return dtype


def _folder(name: str) -> Path | None:
    """The folder meant, or None for a hub id, so that a mistyped path fails at once and does not wait for the network.

    Raises:
        ModelNotFound: A path is meant, and no model is there.
    """
    path = Path(name).expanduser()
    if not path.exists() and not path.is_absolute() and not name.startswith(".") and name.count("/") <= 1:
        return None  # `model` and `owner/model` are what hub ids look like
    if not path.is_dir():
        raise ModelNotFound(f"There is no folder {name!r}.", hint=_WHAT_TO_GIVE)
    if not (path / "config.json").is_file():
        raise ModelNotFound(f"The folder {name!r} holds no config.json.", hint=_WHAT_TO_GIVE)
    return path


def _config(source: str, *, is_folder: bool) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source)
    except OSError as error:
        if is_folder:
            raise _unusable(source, _first_line(error)) from error
        raise ModelNotFound(
            f"{source!r} is no folder here, and the Hugging Face hub did not give it: {_first_line(error)}.",
            hint="Check the spelling and the network; a private model needs HF_TOKEN; offline, give a folder.",
        ) from error
    except Exception as error:
        raise _unusable(source, _first_line(error)) from error
    return config


def _model(source: str, kind: Any, *, dtype: torch.dtype | str, device: torch.device) -> PreTrainedModel:
    try:
        loaded: Any = kind.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except Exception as error:  # damaged files raise whatever their parser raises
        raise _unusable(source, _first_line(error)) from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would go on with random weights in their place
        raise _unusable(source, f"it has no weights for {', '.join(sorted(report['missing_keys'])[:3])}")
    frozen: PreTrainedModel = model.to(device).eval().requires_grad_(requires_grad=False)
    return frozen


def _tokenizer(source: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # damaged files raise whatever their parser raises
        raise _unusable(source, f"its tokenizer does not load: {_first_line(error)}") from error
    if tokenizer.pad_token is None:  # padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side = "left"
    return tokenizer


def _tokens_only(own: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """The special tokens of a checkpoint's generation config, without its sampling.

    `generate` fills in from the model's config what a call leaves open, so a checkpoint's repetition penalty or top-k
    would change answers for which nobody asked for one.
    """
    end = getattr(own, "eos_token_id", None)
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if end is None else end,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=getattr(own, "decoder_start_token_id", None),
    )


def _context_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    return int(positions or tokenizer.model_max_length)


def _unusable(source: str, why: str) -> ModelNotFound:
    return ModelNotFound(f"{source!r} cannot be loaded as a causal language model: {why}.", hint=_WHAT_TO_GIVE)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".:")
