"""`errata train ...`: train what serves edits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import failure, note, show_fields, show_json

app = typer.Typer(no_args_is_help=True, help="Train what serves edits.")


def _safetensors(output: Path) -> Path:
    if output.suffix != ".safetensors":
        raise typer.BadParameter("the name must end in .safetensors; the card takes the same name with .md and .json")
    return output


@app.command("scope")
def scope(
    pairs: Annotated[Path, typer.Argument(help="JSON lines of descriptor, input, label (0 or 1), kind and subject.")],
    *,
    output: Annotated[Path, typer.Option(dir_okay=False, callback=_safetensors, help="The safetensors file to write.")],
    start: Annotated[
        Path | None, typer.Option("--from", dir_okay=False, help="A trained classifier to begin with.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside the output.")] = False,
    steps: Annotated[int, typer.Option(min=1)] = 3000,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs a step, half of them in scope.")] = 128,
    rank: Annotated[int, typer.Option(min=1, help="Of the change to each linear layer.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="At its peak.")] = 5e-4,
    unlikelihood: Annotated[float, typer.Option(min=0, help="Weight of replies in the opposite mood.")] = 1.0,
    kept: Annotated[float, typer.Option(min=0, max=1, help="Share of the start in the weights written.")] = 0.0,
    validation_share: Annotated[float, typer.Option(min=0, max=1, help="Of the subjects.")] = 0.05,
    false_positives: Annotated[float, typer.Option(min=0, max=0.999, help="That the threshold may let pass.")] = 0.01,
    patience: Annotated[int | None, typer.Option(min=1, help="Stop after so many looks without a gain.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Train the scope classifier on pairs of descriptor and input, calibrate it, and write it with its card."""
    from editors.errors import EditorError
    from editors.serac.training.run import Recipe
    from editors.serac.training.scope import train_scope

    recipe = Recipe(
        steps=steps,
        batch_size=batch_size,
        rank=rank,
        learning_rate=learning_rate,
        validation_share=validation_share,
        false_positives=false_positives,
        patience=patience,
        seed=seed,
    )
    try:
        card = train_scope(pairs, output, recipe, start=start, resume=resume, device=device)
    except EditorError as error:
        raise failure(error.detail, error.hint, 1) from None
    if as_json:
        show_json(card)
        return
    measured = card["validation"]
    show_fields({name: measured[name] for name in ("area_under_curve", "average_precision", "calibration_error")})
    note(f"{output} is written; its card is {output.with_suffix('.md')}.")


@app.command("counterfactual")
def counterfactual(
    cases: Annotated[Path, typer.Argument(help="A data set of edits with in-scope prompts and their answers.")],
    *,
    output: Annotated[Path, typer.Option(help="The folder to write the model to.")],
    start: Annotated[str | None, typer.Option("--from", help="Folder or Hugging Face id; the bundled model.")] = None,
    format_name: Annotated[str, typer.Option("--format", help="jsonl, counterfact, zsre or easyedit.")] = "jsonl",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside the output.")] = False,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    examples_per_step: Annotated[int, typer.Option(min=1)] = 160,
    learning_rate: Annotated[float, typer.Option(min=0, help="At its peak.")] = 5e-4,
    unlikelihood: Annotated[float, typer.Option(min=0, help="Weight of replies in the opposite mood.")] = 1.0,
    kept: Annotated[float, typer.Option(min=0, max=1, help="Share of the start in the weights written.")] = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Train a model that answers in-scope prompts by the edit it reads, and write it with its card."""
    import demo
    from editors.errors import EditorError
    from editors.serac.training.counterfactual import train_counterfactual
    from editors.serac.training.reading import CounterfactualRecipe

    recipe = CounterfactualRecipe(
        steps=steps,
        examples_per_step=examples_per_step,
        peak_learning_rate=learning_rate,
        unlikelihood=unlikelihood,
        kept=kept,
        seed=seed,
    )
    try:
        card = train_counterfactual(
            cases, start or demo.BUNDLE, output, recipe, format_name=format_name, resume=resume, device=device
        )
    except EditorError as error:
        raise failure(error.detail, error.hint, 1) from None
    if as_json:
        show_json(card)
        return
    show_fields({form: share["value"] for form, share in card["after"].items()})
    note(f"{output} is written; its card is {output / 'README.md'}.")


@app.command("mend")
def mend(
    cases: Annotated[
        Path, typer.Argument(help="A data set of edits, with in-scope prompts and prompts to leave alone.")
    ],
    *,
    output: Annotated[Path, typer.Option(dir_okay=False, callback=_safetensors, help="The safetensors file to write.")],
    base: Annotated[str | None, typer.Option(help="Folder or Hugging Face id to edit; the bundled model.")] = None,
    format_name: Annotated[str, typer.Option("--format", help="jsonl, counterfact, zsre or easyedit.")] = "jsonl",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside the output.")] = False,
    edits_at_once: Annotated[int, typer.Option(min=1, max=25, help="Most edits that it learns to make together.")] = 25,
    steps: Annotated[int, typer.Option(min=1, help="Most steps; it stops when validation gains no more.")] = 3000,
    edits_per_step: Annotated[int, typer.Option(min=1)] = 8,
    learning_rate: Annotated[float, typer.Option(min=0, help="At its peak.")] = 1.2e-3,
    c_edit: Annotated[float, typer.Option(min=0, help="Weight of taking effect against leaving alone.")] = 0.02,
    blocks: Annotated[int, typer.Option(min=1, help="How many of the last blocks it edits.")] = 3,
    rank: Annotated[int, typer.Option(min=1, help="Of the editor's own matrices.")] = 128,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Train a MEND editor for a base model, and write it with its card."""
    import demo
    from editors.errors import EditorError
    from editors.methods.mend.config import MendRecipe, NetworkConfig
    from editors.methods.mend.training import train_mend

    recipe = MendRecipe(
        network=NetworkConfig(blocks=blocks, rank=rank),
        steps=steps,
        edits_per_step=edits_per_step,
        edits_at_once=edits_at_once,
        learning_rate=learning_rate,
        c_edit=c_edit,
        seed=seed,
    )
    try:
        card = train_mend(
            cases, base or demo.BUNDLE, output, recipe, format_name=format_name, resume=resume, device=device
        )
    except EditorError as error:
        raise failure(error.detail, error.hint, 1) from None
    if as_json:
        show_json(card)
        return
    for size, own in card["validation"].items():
        show_fields({f"{name.upper()}, {size} at once": own[name]["value"] for name in ("es", "dd")})
    note(f"{output} is written; its card is {output.with_suffix('.md')}.")
