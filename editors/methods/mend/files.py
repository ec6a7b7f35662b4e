"""Trained editors on disk: one safetensors file, whose header says which base it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from editors.errors import TrainedEditorMismatch, TrainedEditorNotFound
from editors.methods.mend.config import NetworkConfig
from editors.methods.mend.network import Networks
from editors.model.loading import BaseModel

_FORMAT = "errata-mend-1"
_MANIFEST = "manifest"
_AGAIN = "Train one for this model with `errata train mend`."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedEditor:
    """An editor and where it comes from.

    Attributes:
        base: The fingerprint of the model that it edits.
        config: Of its networks.
        networks: With what they learnt.
        score: ES - DD on its validation cases; the best of several editors of one base is used.
    """

    base: str
    config: NetworkConfig
    networks: Networks
    score: float


def save(editor: TrainedEditor, path: Path) -> None:
    """Write an editor in one step, so that an interruption leaves the old file or the new one.

    The manifest in the header: format, fingerprint of the base, sites with their shapes, config, score.
    """
    manifest = {
        "format": _FORMAT,
        "base": editor.base,
        "sites": editor.networks.sites,
        "config": asdict(editor.config),
        "score": editor.score,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".writing")
    save_file(stored(editor.networks), partial, metadata={_MANIFEST: json.dumps(manifest)})
    partial.replace(path)


def stored(networks: Networks) -> dict[str, Tensor]:
    """Copies of the tensors as a file holds them: matrices in half precision, which is half the size."""
    return {
        name: tensor.detach().to("cpu", torch.float16 if tensor.dim() == 2 else tensor.dtype, copy=True).contiguous()
        for name, tensor in networks.state_dict().items()
    }


def load(path: Path, base: BaseModel) -> TrainedEditor:
    """Read what `save` wrote, onto the base's device.

    Raises:
        TrainedEditorNotFound: The file is missing, damaged, or of another format.
        TrainedEditorMismatch: It was trained for another base model, or does not fit the weights of this one.
    """
    try:
        manifest = _manifest(path)
        if manifest is None:
            raise ValueError(f"it is no file of format {_FORMAT!r}")  # noqa: TRY301 -- told like any other damage
        refuse_misfit(base, path, manifest)
        return _read(path, base, manifest)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise TrainedEditorNotFound(
            f"The editor {path} cannot be read: {type(error).__name__}: {error}.", hint=f"Restore the file. {_AGAIN}"
        ) from error


def find(base: BaseModel, folders: Sequence[Path]) -> TrainedEditor:
    """The editor of this base with the best score, wherever it lies.

    Raises:
        TrainedEditorNotFound: The folders hold no editor, or a damaged one of this base.
        TrainedEditorMismatch: They hold editors of other bases alone.
    """
    files = sorted(file for folder in folders for file in folder.glob("*.safetensors"))
    manifests = {file: manifest for file in files if (manifest := _manifest_if_any(file)) is not None}
    if not manifests:
        raise TrainedEditorNotFound(f"There is no trained MEND editor of {base.name}.", hint=_AGAIN)
    own = [file for file, manifest in manifests.items() if manifest["base"] == base.fingerprint]
    best = max(own or manifests, key=lambda file: float(manifests[file]["score"]))
    return load(best, base)


def refuse_misfit(base: BaseModel, path: Path, manifest: Mapping[str, Any]) -> None:
    """Raise when an editor cannot edit a base.

    Raises:
        TrainedEditorMismatch: It was trained for another base model, or does not fit the weights of this one.
    """
    if manifest["base"] != base.fingerprint:
        raise TrainedEditorMismatch(
            f"The editor {path} was trained for the base model {manifest['base'][:12]}, and {base.name} is "
            f"{base.fingerprint[:12]}.",
            hint=_AGAIN,
        )
    trained, own = _shapes(manifest), NetworkConfig(**manifest["config"]).sites(base)
    if trained != own:
        site = next((site for site in own if trained.get(site) != own[site]), next(iter(trained), "nothing"))
        raise TrainedEditorMismatch(
            f"The editor {path} has {trained.get(site, 'nothing')} for {site}; {base.name} has "
            f"{own.get(site, 'no such weight')}.",
            hint=_AGAIN,
        )


def _shapes(manifest: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    return {site: (n_out, n_in) for site, (n_out, n_in) in manifest["sites"].items()}


def _read(path: Path, base: BaseModel, manifest: Mapping[str, Any]) -> TrainedEditor:
    config = NetworkConfig(**manifest["config"])
    networks = Networks(_shapes(manifest), config)
    with safe_open(path, framework="pt") as file:
        networks.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 -- not a dict
    networks.to(base.device).requires_grad_(requires_grad=False)
    return TrainedEditor(base=manifest["base"], config=config, networks=networks, score=float(manifest["score"]))


def _manifest(path: Path) -> dict[str, Any] | None:
    """What the header says; None for another kind of file."""
    with safe_open(path, framework="pt") as file:
        held = (file.metadata() or {}).get(_MANIFEST)
    manifest = None if held is None else json.loads(held)
    return manifest if isinstance(manifest, dict) and manifest.get("format") == _FORMAT else None


def _manifest_if_any(path: Path) -> dict[str, Any] | None:
    """The same; None for a file that cannot be read too, since nothing says that it is an editor."""
    try:
        return _manifest(path)
    except (OSError, SafetensorError, ValueError):
        return None
