"""`errata stats`: collect what ROME needs to know of a base model's keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import failure, note, show_fields, show_json

if TYPE_CHECKING:
    from editors.model.loading import BaseModel
    from editors.surgery.covariance import KeyCovariance


def stats(
    texts: Annotated[
        Path | None,
        typer.Argument(help="A corpus: .txt with a text a line, or .jsonl with `text`; the bundled model has its own."),
    ] = None,
    *,
    base: Annotated[str | None, typer.Option(help="Folder or Hugging Face id; the bundled model.")] = None,
    layer: Annotated[list[int] | None, typer.Option(min=0, help="Repeatable; the one that ROME would edit.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Texts to read, drawn at random; all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that draw.")] = 0,
    output: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder; that of the service's assets, where bakes look.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was collected as JSON.")] = False,
) -> None:
    """Collect key statistics over a corpus, for ROME: interrupted, it goes on where it stopped."""
    from editors.errors import EditorError

    if texts is None and base is not None:
        raise typer.BadParameter("give a corpus: only the bundled model brings its own", param_hint="TEXTS")
    folder = output or _assets()
    try:
        model, found = _collect(texts, base, layer or [], folder, sample=sample, seed=seed, device=device)
    except EditorError as error:
        raise failure(error.detail, error.hint, 1) from None
    except ValueError as error:
        raise failure(f"{error}.", "errata stats --help describes the options.", 2) from None
    sites = [
        {"site": one.key.site, "texts": one.key.sample, "keys": one.keys, "width": len(one.total), "file": one.key.file}
        for one in found
    ]
    if as_json:
        show_json({"model": model.name, "fingerprint": model.fingerprint, "folder": str(folder), "sites": sites})
        return
    for site in sites:
        show_fields(site)
    for one in found:
        if one.keys < len(one.total):
            note(f"There are fewer keys than {one.key.site} is wide: read more, or edits disturb more than they need.")
    note(f"Written to {folder}.")


def _collect(
    texts: Path | None,
    base: str | None,
    layers: list[int],
    folder: Path,
    *,
    sample: int | None,
    seed: int,
    device: str,
) -> tuple[BaseModel, list[KeyCovariance]]:
    import demo
    import demo.statistics
    from editors.methods.rome.editor import Rome
    from editors.model.loading import load_base
    from editors.recommended import config_for
    from editors.surgery import covariance
    from editors.surgery.texts import read_texts

    model = load_base(base or demo.BUNDLE, device=device)
    corpus = demo.statistics.texts() if texts is None else read_texts(texts)
    own = config_for(model, Rome(), [folder, demo.STATISTICS])
    configs = [replace(own, layer=layer) for layer in layers] or [own]
    sites = [model.anatomy.within(one.layer_of(model.model.config), model.anatomy.mlp_out) for one in configs]
    return model, [covariance.collect(model, site, corpus, folder=folder, sample=sample, seed=seed) for site in sites]


def _assets() -> Path:
    """The folder where the service looks for what weight editors need."""
    from service.errors import StartupError
    from service.settings import load_settings

    try:
        settings = load_settings()
    except StartupError as error:
        raise failure(error.detail, error.hint, error.exit_code) from None
    return settings.assets or settings.data_dir / "assets"
