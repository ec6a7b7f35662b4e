"""Deltas on disk: our own file, a PEFT LoRA adapter, and a merged Hugging Face checkpoint.

PEFT is not needed to write an adapter: it is two files. Not covered: adapters of GPT-2 and GPT-J under vLLM, which has
no LoRA for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from editors.delta import Change, Delta, Dense, LowRank, Origin, install, low_rank, refuse_misfit
from editors.errors import InvalidDeltaFile
from editors.model.loading import BaseModel

_FORMAT = "errata-delta-1"
_MANIFEST = "manifest"
_WEIGHT = ".weight"


def save(delta: Delta, path: Path) -> None:
    """Write a delta as one safetensors file, whose header carries the manifest.

    The manifest: format, version of this library, fingerprint of the base, sites, and for each origin its method,
    config and edits.
    """
    tensors = {f"{site}:{part}": tensor for site, change in delta.changes.items() for part, tensor in _parts(change)}
    manifest = {
        "format": _FORMAT,
        "library": version("errata"),
        "base": delta.base,
        "sites": sorted(delta.changes),
        "origins": [asdict(origin) for origin in delta.origins],
    }
    save_file(_on_disk(tensors), path, metadata={_MANIFEST: json.dumps(manifest, sort_keys=True)})


def load(path: Path, base: BaseModel) -> Delta:
    """Read what `save` wrote.

    Raises:
        InvalidDeltaFile: The file is missing, damaged, or of another format.
        DeltaMismatch: It was made for another base model.
    """
    delta = load_unchecked(path)
    refuse_misfit(base, delta)
    return delta


def load_unchecked(path: Path) -> Delta:
    """Read what `save` wrote, where the base model is not here to hold it against.

    Raises:
        InvalidDeltaFile: The file is missing, damaged, or of another format.
    """
    try:
        return _read(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InvalidDeltaFile(
            f"The delta {path} cannot be read: {type(error).__name__}: {error}.",
            hint="Restore the file, or bake again.",
        ) from error


def to_peft(delta: Delta, base: BaseModel, folder: Path) -> None:
    """Write a LoRA adapter that PEFT loads, and vLLM where it knows the architecture (Hu et al. 2021).

    A = V and B = U with scale alpha / r = 1, so alpha follows each site's rank. A dense change becomes factors of its
    full rank.

    Args:
        delta: What to export.
        base: The model that it was made for.
        folder: Where `adapter_config.json` and `adapter_model.safetensors` go; made if missing.

    Raises:
        DeltaMismatch: The delta was made for another base model.
        ValueError: There is nothing to export, or a site is no module's weight.
    """
    refuse_misfit(base, delta)
    transposed = any(base.anatomy.is_transposed(site) for site in delta.changes)
    write_adapter(delta, folder, base_name=base.name, transposed=transposed)


def write_adapter(delta: Delta, folder: Path, *, base_name: str, transposed: bool = False) -> None:
    """Write a delta as `to_peft` does, where the base model is not here.

    Args:
        delta: What to export.
        folder: Where the files go; made if missing.
        base_name: What those who load the adapter call the base.
        transposed: Whether the base stores the weights [in, out], as GPT-2 does.

    Raises:
        ValueError: There is nothing to export, or a site is no module's weight.
    """
    if not delta.changes or not all(site.endswith(_WEIGHT) for site in delta.changes):
        raise ValueError("a LoRA adapter changes at least one weight, and weights of modules alone")
    factors = {
        site.removesuffix(_WEIGHT): change if isinstance(change, LowRank) else low_rank(change)
        for site, change in delta.changes.items()
    }
    tensors = {}
    for module, change in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = change.v
        tensors[f"base_model.model.{module}.lora_B.weight"] = change.u
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_on_disk(tensors), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    ranks = {module: change.rank for module, change in factors.items()}
    config = _adapter_config(base_name, ranks, transposed=transposed)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def to_hf(delta: Delta, base: BaseModel, folder: Path) -> None:
    """Write the edited model and its tokenizer as a plain Hugging Face checkpoint, in the base's dtype.

    Raises:
        DeltaMismatch: The delta was made for another base model.
    """
    install(base, delta).save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)


def _adapter_config(base_name: str, ranks: Mapping[str, int], *, transposed: bool) -> dict[str, Any]:
    widest = max(ranks.values())
    unequal = {module: rank for module, rank in ranks.items() if rank != widest}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": widest,
        "lora_alpha": widest,
        "rank_pattern": unequal,
        "alpha_pattern": unequal,
        "target_modules": sorted(ranks),
        "fan_in_fan_out": transposed,
        "lora_dropout": 0.0,
        "bias": "none",
    }


def _parts(change: Change) -> tuple[tuple[str, Tensor], ...]:
    if isinstance(change, LowRank):
        return ("u", change.u), ("v", change.v)
    return (("dense", change.weight),)


def _on_disk(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, since a file cannot hold two tensors on one memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _read(path: Path) -> Delta:
    with safe_open(path, framework="pt") as file:
        manifest = json.loads((file.metadata() or {})[_MANIFEST])
        if manifest["format"] != _FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}, not {_FORMAT!r}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a dict
    return Delta(
        base=manifest["base"],
        changes={site: _change(site, tensors) for site in manifest["sites"]},
        origins=tuple(
            Origin(method=origin["method"], config=origin["config"], edits=tuple(origin["edits"]))
            for origin in manifest["origins"]
        ),
    )


def _change(site: str, tensors: Mapping[str, Tensor]) -> Change:
    dense = tensors.get(f"{site}:dense")
    return LowRank(tensors[f"{site}:u"], tensors[f"{site}:v"]) if dense is None else Dense(dense)
