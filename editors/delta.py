"""Deltas: what an edit changes about a base model, apart from the model and never inside it.

A delta names weights and holds what to add to each, always as [out, in] in float32, whatever the model's storage and
dtype; `install` puts it on a view. It is whole: relative to the base, not to another delta. Undoing a delta is dropping
the view; subtracting it is not bit-exact. Files and exports are in `delta_files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from editors.errors import DeltaMismatch
from editors.model.loading import BaseModel
from editors.model.views import view


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """U V, a change of rank r.

    Attributes:
        u: U, [out, r], float32.
        v: V, [r, in], float32.
    """

    u: Tensor
    v: Tensor

    def __post_init__(self) -> None:
        if self.u.dim() != 2 or self.v.dim() != 2 or self.u.shape[1] != self.v.shape[0]:
            raise ValueError(f"U {tuple(self.u.shape)} and V {tuple(self.v.shape)} are not [out, r] and [r, in]")
        if self.u.dtype != torch.float32 or self.v.dtype != torch.float32:
            raise ValueError(f"U is {self.u.dtype} and V {self.v.dtype}; both must be float32")

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.u.shape[0], self.v.shape[1]

    @property
    def rank(self) -> int:
        """Columns of U; the product's own rank may be lower."""
        return self.u.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """U and V."""
        return self.u, self.v

    def product(self) -> Tensor:
        """U V, [out, in]."""
        return self.u @ self.v

    def norm(self) -> float:
        """The Frobenius norm, by ||UV||^2 = tr(U^T U V V^T), without the product."""
        u, v = self.u.double(), self.v.double()
        return float(((u.T @ u) * (v @ v.T)).sum().clamp(min=0).sqrt())


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A change without structure.

    Attributes:
        weight: [out, in], float32.
    """

    weight: Tensor

    def __post_init__(self) -> None:
        if self.weight.dim() != 2 or self.weight.dtype != torch.float32:
            raise ValueError(f"a dense change is [out, in] in float32, not {tuple(self.weight.shape)}")

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The one tensor."""
        return (self.weight,)

    def product(self) -> Tensor:
        """The change itself, [out, in]."""
        return self.weight

    def norm(self) -> float:
        """The Frobenius norm."""
        return float(self.weight.double().norm())


Change = LowRank | Dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who made a delta, and of what; everything in it can be written as JSON.

    Attributes:
        method: The weight editor's name.
        config: Its settings, defaults included.
        edits: The requests it was given, in order.
    """

    method: str
    config: Mapping[str, Any]
    edits: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delta:
    """Changes to named weights of one base model.

    Attributes:
        base: The base model's fingerprint.
        changes: By weight, as in `model.named_parameters()`; read-only.
        origins: Where it comes from, in the order of composition.
    """

    base: str
    changes: Mapping[str, Change]
    origins: tuple[Origin, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes", MappingProxyType(dict(self.changes)))

    @property
    def is_finite(self) -> bool:
        """Whether every number in it is."""
        return all(bool(tensor.isfinite().all()) for change in self.changes.values() for tensor in change.tensors)

    def compressed(self, rank: int | None = None) -> Delta:
        """The same delta in low-rank factors, of at most this rank at each site; see `low_rank`."""
        return replace(self, changes={site: low_rank(change, rank) for site, change in self.changes.items()})

    def relative_norms(self, base: BaseModel) -> dict[str, float]:
        """||change|| / ||weight|| by site, in Frobenius norms.

        Raises:
            DeltaMismatch: The delta does not fit this base.
        """
        refuse_misfit(base, self)
        weights = {site: base.model.get_parameter(site) for site in self.changes}
        return {site: self.changes[site].norm() / float(weights[site].double().norm()) for site in self.changes}


def compose(deltas: Sequence[Delta]) -> Delta:
    """The sum of deltas of one base. Low-rank changes of a site are concatenated: their ranks add up.

    Raises:
        DeltaMismatch: They belong to different base models, or disagree on a weight's shape.
        ValueError: There are none.
    """
    if not deltas:
        raise ValueError("composing needs at least one delta")
    if len({delta.base for delta in deltas}) > 1:
        raise DeltaMismatch(
            "These deltas were made for different base models.", hint="Make them again on the model they are to change."
        )
    changes: dict[str, Change] = {}
    for delta in deltas:
        for site, change in delta.changes.items():
            changes[site] = _sum(site, changes[site], change) if site in changes else change
    return Delta(
        base=deltas[0].base, changes=changes, origins=tuple(origin for delta in deltas for origin in delta.origins)
    )


def low_rank(change: Change, rank: int | None = None) -> LowRank:
    """The change in factors of the least rank that still gives it to float32's precision, by QR and SVD in float64.

    Args:
        change: What to factor.
        rank: At most this; then it is the nearest change of that rank in Frobenius norm (Eckart and Young 1936).

    Raises:
        ValueError: The rank is below 1.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank is {rank}; it must be at least 1")
    if isinstance(change, LowRank):
        q_u, r_u = torch.linalg.qr(change.u.double())
        q_v, r_v = torch.linalg.qr(change.v.double().T)
        left, singular, right = torch.linalg.svd(r_u @ r_v.T, full_matrices=False)
        left, right = q_u @ left, right @ q_v.T
    else:
        left, singular, right = torch.linalg.svd(change.weight.double(), full_matrices=False)
    noise = torch.finfo(torch.float32).eps * singular.max()
    kept = max(1, min(int((singular > noise).sum()), rank or len(singular)))
    root = singular[:kept].sqrt()
    return LowRank((left[:, :kept] * root).float(), (root[:, None] * right[:kept]).float())


def install(base: BaseModel, delta: Delta) -> PreTrainedModel:
    """A view of the base with the delta in its weights, in the model's dtype; the base is untouched.

    The view owns the edited weights alone. Each is summed in float32 and rounded once.

    Raises:
        DeltaMismatch: The delta was made for another base model, or does not fit its weights.
        UnknownArchitecture: Weight editing does not know the model.
    """
    refuse_misfit(base, delta)
    edited = view(base.model, delta.changes)
    with torch.no_grad():
        for site, change in delta.changes.items():
            weight = edited.get_parameter(site)
            stored = base.anatomy.oriented(site, change.product().to(weight.device))
            weight.copy_(weight.float() + stored)
    return edited


def refuse_misfit(base: BaseModel, delta: Delta) -> None:
    """Raise when a delta cannot be installed on a base.

    Raises:
        DeltaMismatch: It was made for another base model, or does not fit its weights.
    """
    if delta.base != base.fingerprint:
        raise DeltaMismatch(
            f"The delta was made for the base model {delta.base[:12]}, and {base.name} is {base.fingerprint[:12]}.",
            hint="Load the model that it was made for, or make it again for this one.",
        )
    weights = dict(base.model.named_parameters())
    for site, change in delta.changes.items():
        shape = tuple(base.anatomy.oriented(site, weights[site]).shape) if site in weights else None
        if shape != change.shape:
            raise DeltaMismatch(
                f"The delta changes {site} of shape {change.shape}; {base.name} has {shape or 'no such weight'}.",
                hint="The delta's file does not belong to this model; make it again.",
            )


def _sum(site: str, one: Change, other: Change) -> Change:
    if one.shape != other.shape:
        raise DeltaMismatch(
            f"Deltas disagree on the shape of {site}: {one.shape} and {other.shape}.", hint="Make them again."
        )
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        return LowRank(torch.cat([one.u, other.u], dim=1), torch.cat([one.v, other.v], dim=0))
    return Dense(one.product() + other.product())
