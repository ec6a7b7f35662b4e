"""`errata trace`: find the layers that carry a base model's facts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import failure, note, save, show_json, show_table

if TYPE_CHECKING:
    from editors.surgery.causal_trace import CausalTrace


def _json_file(output: Path) -> Path:
    if output.suffix != ".json":
        raise typer.BadParameter("the name must end in .json; the plot takes the same name with .png")
    return output


def trace(
    cases: Annotated[
        Path | None, typer.Argument(help="A data set of facts with their subjects; the bundled model has its own.")
    ] = None,
    *,
    base: Annotated[str | None, typer.Option(help="Folder or Hugging Face id; the bundled model.")] = None,
    format_name: Annotated[str, typer.Option("--format", help="jsonl, counterfact, zsre or easyedit.")] = "jsonl",
    facts: Annotated[int, typer.Option(min=1, help="Most facts to trace, of those that the model knows.")] = 100,
    noise: Annotated[float, typer.Option(help="In standard deviations of the subjects' embeddings.")] = 3.0,
    samples: Annotated[int, typer.Option(min=1, help="Draws of noise for each fact.")] = 10,
    window: Annotated[int | None, typer.Option(min=1, help="Layers put back at once; 10 of 48.")] = None,
    output: Annotated[
        Path, typer.Option(dir_okay=False, callback=_json_file, help="The file to write, and a .png beside it.")
    ] = Path("trace.json"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the effects as JSON.")] = False,
) -> None:
    """Trace which layers and tokens carry facts (Meng et al. 2022, sec. 2), and name the layer to edit."""
    import demo
    from demo.suites import facts as bundled_facts
    from editors.errors import EditorError
    from editors.evaluation.datasets import read_cases
    from editors.model.loading import load_base
    from editors.surgery.causal_trace import TraceConfig, trace_facts

    if cases is None and base is not None:
        raise typer.BadParameter("give a data set: only the bundled model brings its own", param_hint="CASES")
    try:
        config = TraceConfig(noise=noise, samples=samples, window=window, seed=seed)
        model = load_base(base or demo.BUNDLE, device=device)
        own = bundled_facts()
        told = Random(seed).sample(own, len(own)) if cases is None else read_cases(cases, format_name)
        found = trace_facts(model, told, config, limit=facts)
    except EditorError as error:
        raise failure(error.detail, error.hint, 1) from None
    except ValueError as error:
        raise failure(f"{error}.", "errata trace --help describes the options.", 2) from None
    document = {"model": model.name, "fingerprint": model.fingerprint, "config": asdict(config), **found.plain()}
    save(output, json.dumps(document, indent=2) + "\n", 1)
    draw(found, model.name, output.with_suffix(".png"))
    if as_json:
        show_json(document)
        return
    show(found)
    note(f"Layer {found.layer}, counted from 0, has the MLP with most effect at the subject's last token.")
    note(f"{output} and {output.with_suffix('.png')} are written.")


def show(found: CausalTrace) -> None:
    """Print the average indirect effects: a row for each state and layer, a column for each position."""
    positions = list(next(iter(found.effects.values())))
    rows = [
        (state, layer, *(effects[position][layer] for position in positions))
        for state, effects in found.effects.items()
        for layer in range(len(effects[positions[0]]))
    ]
    typer.echo(f"{found.facts} facts; the answer's probability is {found.clean:.3f}, with noise {found.corrupted:.3f}.")
    show_table(("put back", "layer", *positions), ([_rounded(value) for value in row] for row in rows))


def draw(found: CausalTrace, name: str, path: Path) -> None:
    """Draw the effects as the paper's figure 2 does: a heat map for each state, layers across and positions down."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(found.effects), sharey=True)
    for axes, (state, effects), colours in zip(
        panels, found.effects.items(), ("Purples", "Greens", "Reds"), strict=True
    ):
        values = np.array(list(effects.values()))
        image = axes.imshow(values, aspect="auto", cmap=colours, vmin=min(0.0, np.nanmin(values)))
        axes.set_yticks(range(len(effects)), list(effects))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("layer" if state == "hidden state" or found.window == 1 else f"middle of {found.window} layers")
        axes.set_title(state)
        figure.colorbar(image, ax=axes)
    figure.suptitle(f"{name}: average indirect effect of putting a state back, {found.facts} facts")
    figure.savefig(path, dpi=150)


def _rounded(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value
