"""Versions as others load them, each with a model card that says what it is: base, edits, and what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from editors import delta_files
from editors.delta import Delta
from editors.errors import DeltaMismatch, InvalidDeltaFile
from editors.model.loading import BaseModel
from service.domain.bakes import BakeReport
from service.domain.versions import ExportFormat, Version
from service.errors import ArtifactDamaged, BaseMismatch


def write_export(base: BaseModel, version: Version, file: Path, kind: ExportFormat, folder: Path) -> None:
    """Write a version, whose delta is in `file`, into a folder.

    Raises:
        BaseMismatch: It was made for another base model.
        ArtifactDamaged: The file holds no delta.
        OSError, SafetensorError: A file cannot be written.
    """
    try:
        delta = delta_files.load(file, base)
    except DeltaMismatch as error:
        raise BaseMismatch(error.detail, hint=error.hint) from error
    except InvalidDeltaFile as error:
        raise ArtifactDamaged(f"The delta of {version.id} cannot be read: {error.detail}") from error
    write = delta_files.to_peft if kind is ExportFormat.PEFT else delta_files.to_hf
    write(delta, base, folder)
    (folder / "README.md").write_text(model_card(version, delta, kind), encoding="utf-8")


def model_card(version: Version, delta: Delta, kind: ExportFormat) -> str:
    """Markdown, with the front matter that the Hugging Face hub reads."""
    front = {"base_model": version.base.name, "library_name": "peft" if kind is ExportFormat.PEFT else "transformers"}
    edits = [edit for origin in delta.origins for edit in origin.edits]
    return "\n".join(
        [
            "---",
            *(f"{name}: {json.dumps(value)}" for name, value in front.items()),
            "---",
            "",
            f"# {version.base.name}, {version.id}",
            "",
            f"{len(edits)} edits written into the weights of {version.base.name} by {version.method}, baked by Errata.",
            "",
            f"- base: {version.base.name}, SHA-256 of config and tensors `{version.base.fingerprint}`",
            f"- settings: `{json.dumps(version.config)}`",
            f"- made: {version.created_at:%Y-%m-%d %H:%M} UTC by {version.actor}",
            "",
            "## Edits",
            "",
            "| prompt | answer |",
            "| --- | --- |",
            *(f"| {_cell(edit['prompt'])} | {_cell(edit['target'])} |" for edit in edits),
            "",
            *([] if version.report is None else _measured(version.report)),
        ]
    )


def _measured(report: BakeReport) -> list[str]:
    return [
        "## Measured",
        "",
        f"Before it was released, on {report.probes} prompts, each answered by the base and by this version.",
        "",
        "| figure | form | mode | value | 95% interval | cases |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {one.metric} | {one.form or 'all'} | {one.mode.replace('_', ' ')} | {one.value:.3f} | "
            f"{one.low:.3f} to {one.high:.3f} | {one.cases} |"
            for one in report.measured
        ),
        "",
        "| weight | rank of the change | its norm against the weight's |",
        "| --- | --- | --- |",
        *(f"| `{site.site}` | {site.rank or 'dense'} | {site.relative_norm:.3g} |" for site in report.sites),
        "",
    ]


def _cell(text: str) -> str:
    """A text in a cell of a table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
