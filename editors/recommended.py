"""Settings recommended for one base model, which lie beside what else was made for it beforehand.

A method's defaults are the published ones, for the models they were published with. Another model may want others: the
bundle brings its own, in a file `<name>.settings.json` among its assets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from editors.errors import StatisticsNotFound
from editors.method import Method
from editors.model.loading import BaseModel

_SUFFIX = ".settings.json"


def recommended(base: BaseModel, method: str, folders: Sequence[Path]) -> dict[str, Any]:
    """The settings of a method that are recommended for a base, as JSON has them; none where no folder has any.

    What they leave out takes the method's default, and what a caller gives comes before them.

    Args:
        base: The model to edit.
        method: The method's name.
        folders: Assets, as `Method.prepare` takes them; the first that has such a file decides.

    Raises:
        StatisticsNotFound: A file of settings is damaged.
    """
    for file in (file for folder in folders for file in sorted(folder.glob(f"*{_SUFFIX}"))):
        model, settings = _read(file)
        if model == base.fingerprint and method in settings:
            return settings[method]
    return {}


def config_for(base: BaseModel, method: Method[Any], folders: Sequence[Path], **given: Any) -> Any:
    """A method's config: what is given, then what is recommended for the base, then the method's defaults.

    Args:
        base: The model to edit.
        method: Whose config it is.
        folders: Assets.
        given: Settings by name.

    Raises:
        StatisticsNotFound: A file of settings is damaged.
        ValueError: A setting is unknown or makes no sense.
    """
    settings = {**recommended(base, method.name, folders), **given}
    if unknown := settings.keys() - {field.name for field in fields(method.config)}:
        raise ValueError(f"{method.name} has no setting {min(unknown)!r}")
    return TypeAdapter(method.config).validate_python(settings)


def _read(file: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """The fingerprint of the model, and the settings by method."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        return str(held["model"]), {method: dict(settings) for method, settings in held["settings"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StatisticsNotFound(
            f"The recommended settings {file} cannot be read: {type(error).__name__}: {error}.",
            hint="Restore the file, or delete it and give the settings with each edit.",
        ) from error
