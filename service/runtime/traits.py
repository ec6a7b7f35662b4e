"""What can be said of a base, wherever it is."""

from __future__ import annotations

from dataclasses import dataclass

from editors.model.loading import BaseModel
from service.runtime.upstream import UpstreamEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """As in `service.domain.ports.RuntimeInfo`."""

    model: str
    upstream: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    device: str | None = None
    dtype: str | None = None


def traits_of(base: BaseModel | UpstreamEngine) -> Traits:
    """What does not change while it serves."""
    if isinstance(base, UpstreamEngine):
        return Traits(model=base.model, upstream=base.url)
    return Traits(
        model=base.name,
        architecture=str(base.model.config.model_type),
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
        device=str(base.device),
        dtype=str(base.dtype).removeprefix("torch."),
    )
