"""Settings: read once from the environment (`ERRATA_*`), frozen, and passed to whoever needs them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import StartupError

PREFIX = "ERRATA_"
CLIENT_VARIABLES = frozenset({"ERRATA_URL"})
"""Read by the command line as a client, not by the service."""


class Settings(BaseModel):
    """Everything an operator can set. Each field is the variable `ERRATA_<FIELD IN CAPITALS>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str = Field(
        "", description="A Hugging Face id or a folder; empty means the bundled demonstration, atlas-2018."
    )
    counterfactual_model: str = Field(
        "",
        description="What reads edits and answers by them: a folder that `errata train counterfactual` wrote, or a "
        "Hugging Face id; empty means the bundled one for the bundled base, and any other base itself.",
    )
    scope_classifier: str = Field(
        "", description="A file that `errata train scope` wrote; empty means the bundled scope classifier."
    )
    assets: Path | None = Field(
        None,
        description="A folder with what weight editors need to have been made for the base: key statistics, trained "
        "editors; empty means `assets` in the data directory, beside what is bundled for the bundled base.",
    )
    data_dir: Path = Field(Path("errata-data"), description="Where the embedded database and other state live.")
    database_url: str = Field("", description="PostgreSQL to use (postgresql://...); empty means the embedded one.")
    artifacts_url: str = Field(
        "",
        description="Where versions are kept: a folder, or any URL that fsspec knows, which belongs to one database; "
        "empty means `artifacts` in the data directory.",
    )
    jobs: bool = Field(
        True,  # noqa: FBT003 - a default
        description="Whether the service does queued jobs, bakes and evaluations, itself; false leaves them to "
        "`errata worker`.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...; auto takes a GPU when there is one.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of the base model's weights; auto is float32 on CPU and the checkpoint's own on a GPU."
    )
    host: str = Field("127.0.0.1", description="The address to listen on; only loopback ones until API keys exist.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    threads: int = Field(0, ge=0, description="CPU threads for the model; 0 means one for each core.")
    scope_threshold: float | None = Field(
        None, ge=0, le=1, description="Beta at or above which an edit answers; empty means the scope classifier's own."
    )
    scope_candidates: int = Field(3, ge=1, le=256, description="Edits retrieved from the index for each prompt.")
    catch_up_seconds: float = Field(5.0, gt=0, description="Longest wait for min_revision before 503.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment, `os.environ` by default. An empty variable counts as not set.

    Raises:
        StartupError: An `ERRATA_*` variable is unknown, has a bad value, or opens the service to the network.
    """
    environ = os.environ if environ is None else environ
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | CLIENT_VARIABLES
    for name in sorted(n for n in environ if n.upper().startswith(PREFIX) and n.upper() not in known):
        close = difflib.get_close_matches(name.upper(), known, n=1)
        raise StartupError(
            f"{name} is not a setting of Errata.",
            hint=f"Did you mean {close[0]}?" if close else "docs/settings.md lists the settings.",
        )
    values = {name[len(PREFIX) :].lower(): value for name, value in environ.items() if value and name.upper() in known}
    try:
        settings = Settings.model_validate({k: v for k, v in values.items() if k in Settings.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{str(first['loc'][0]).upper()}"
        raise StartupError(
            f"{name} is {first['input']!r}: {first['msg'].lower()}.", hint="docs/settings.md says what it takes."
        ) from None
    if not is_loopback(settings.host):
        raise StartupError(
            f"ERRATA_HOST is {settings.host!r}, which other machines can reach, and no API keys are set up.",
            hint="Keep 127.0.0.1 and put a proxy that authenticates in front of it.",
        )
    return settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
