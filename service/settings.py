"""Settings: read once from the environment (`ERRATA_*`), frozen, and passed to whoever needs them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from limits import RateLimitItem, parse_many
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from service.errors import StartupError

PREFIX = "ERRATA_"
CLIENT_VARIABLES = frozenset({"ERRATA_URL", "ERRATA_API_KEY"})
"""Read by the command line as a client, not by the service."""


class Settings(BaseModel):
    """Everything an operator can set. Each field is the variable `ERRATA_<FIELD IN CAPITALS>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str = Field(
        "",
        description="A Hugging Face id or a folder; empty means the bundled demonstration, atlas-2018. With "
        "`ERRATA_BASE_URL`, the model's name there.",
    )
    base_url: str = Field(
        "",
        description="An OpenAI-compatible server whose model is the base, up to and with its /v1; empty means that the "
        "base is loaded here.",
    )
    base_api_key: str = Field("", repr=False, description="The key sent to that server, if it wants one.")
    base_fingerprint: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="Which weights that server holds, by the fingerprint that `GET /checkpoints/v0` tells where they "
        "are loaded; with `ERRATA_ADAPTERS`.",
    )
    adapters: Path | None = Field(
        None,
        description="A folder that this service and that server see under the same path, in which versions are put as "
        "LoRA adapters for it to load; empty means that it serves no version but v0.",
    )
    base_timeout_seconds: float = Field(
        60.0, gt=0, description="Longest wait for an answer of that server, or for the next piece of a streamed one."
    )
    base_connect_seconds: float = Field(5.0, gt=0, description="Longest wait for a connection to that server.")
    counterfactual_model: str = Field(
        "",
        description="What reads edits and answers by them: a folder that `errata train counterfactual` wrote, or a "
        "Hugging Face id, or `bundled`; empty means the bundled one for the bundled base, and any other base itself.",
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
    host: str = Field(
        "127.0.0.1",
        description="The address to listen on; one that other machines can reach needs an API key first.",
    )
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    threads: int = Field(0, ge=0, description="CPU threads for the model; 0 means one for each core.")
    layout_bytes: int = Field(
        2 << 30,
        ge=0,
        description="Memory for weights laid out for quick products, on a CPU and in float32; 0 lays out none.",
    )
    batch: int = Field(32, ge=1, description="Most requests that a version of the model answers at once.")
    queue: int = Field(256, ge=1, description="Most requests that wait for the model; one more is refused with 429.")
    scope_threshold: float | None = Field(
        None, ge=0, le=1, description="Beta at or above which an edit answers; empty means the scope classifier's own."
    )
    scope_candidates: int = Field(3, ge=1, le=256, description="Edits retrieved from the index for each prompt.")
    catch_up_seconds: float = Field(5.0, gt=0, description="Longest wait for min_revision before 503.")
    rate_limit: str = Field(
        "", description="Requests of one key, or of one address, such as 10/second;1000/hour; empty means no limit."
    )
    redis_url: str = Field(
        "",
        description="Redis in which replicas share answers and count requests together (redis://...); empty means each "
        "by itself.",
    )
    answer_cache_bytes: int = Field(
        64 << 20,
        ge=0,
        description="Memory, about, for answers kept so as not to be written twice; 0 keeps none anywhere.",
    )
    answer_cache_seconds: float = Field(
        86400.0, ge=0.001, allow_inf_nan=False, description="How long an answer is kept, here and in Redis."
    )
    max_body_bytes: int = Field(32 << 20, ge=1024, description="Most bytes of a request's body; more is refused.")
    drain_seconds: float = Field(
        0.0, ge=0, description="On SIGTERM, how long new requests are still answered while /readyz says 503."
    )
    log_prompts: bool = Field(False, description="Whether the log may hold prompts and answers.")  # noqa: FBT003 - its default
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")

    @field_validator("rate_limit")
    @classmethod
    def _readable(cls, written: str) -> str:
        try:
            if written:
                parse_many(written)
        except ValueError:
            raise PydanticCustomError("rate_limit", "write it as 100/minute, or 10/second;1000/hour") from None
        return written

    @property
    def rate_limits(self) -> list[RateLimitItem]:
        """The limits that `rate_limit` writes down."""
        return parse_many(self.rate_limit) if self.rate_limit else []


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment, `os.environ` by default. An empty variable counts as not set.

    Raises:
        StartupError: An `ERRATA_*` variable is unknown or has a bad value.
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
    return settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
