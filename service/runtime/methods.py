"""What the service has to know of each weight editor beside what it does: its settings, its reach and its cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from editors import registry
from editors.errors import UnknownMethod as NoSuchMethod
from editors.method import Method
from editors.methods.mend.config import MOST_AT_ONCE
from service.domain.bake_plans import Fit
from service.errors import FieldError, Invalid, UnknownMethod

_PASSES_AROUND = 4
"""About how many passes a method takes beside its optimisation: keys, values, and a look at the outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What is known of a method.

    Attributes:
        most_edits: Up to which it is known to hold; None where no number is known.
        why: Where that number comes from.
        passes: From its config and a number of edits to about how many times it runs the model.
    """

    most_edits: int | None
    why: str
    passes: Callable[[Any, int], int]


TRAITS: MappingProxyType[str, Traits] = MappingProxyType(
    {
        "rome": Traits(
            most_edits=10,
            why="Sequential edits hold to about 10 and degrade from 32 (Meng et al. 2023, fig. 5).",
            passes=lambda config, edits: edits * (config.steps + _PASSES_AROUND),
        ),
        "mend": Traits(
            most_edits=MOST_AT_ONCE,
            why="Simultaneous edits were measured up to 25 before they fade (Mitchell et al. 2022a, table 5).",
            passes=lambda config, edits: edits * (config.steps + _PASSES_AROUND),
        ),
        "fine_tuning": Traits(
            most_edits=None,
            why="No number of edits is too large, and unrelated answers change with any: the baseline.",
            passes=lambda config, _: config.steps + _PASSES_AROUND,
        ),
    }
)
"""By name, those first that are to be preferred where several fit. A test holds it to the registry."""


def method_named(name: str) -> Method[Any]:
    """The method of that name.

    Raises:
        UnknownMethod: There is none.
    """
    try:
        return registry.method_named(name)
    except NoSuchMethod as error:
        raise UnknownMethod(error.detail, hint=error.hint) from error


def config_of(method: Method[Any], given: dict[str, Any]) -> Any:
    """A method's settings from what a caller sent.

    Raises:
        Invalid: A setting is unknown or has a bad value.
    """
    known = [field.name for field in fields(method.config)]
    if unknown := [name for name in given if name not in known]:
        raise Invalid(
            f"{method.name} has no setting {unknown[0]!r}.",
            hint=f"It has {', '.join(known)}.",
            errors=tuple(FieldError(f"/config/{name}", "is not known") for name in unknown),
        )
    try:
        return TypeAdapter(method.config).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        wrong = tuple(FieldError("/".join(("/config", *map(str, one["loc"]))), one["msg"]) for one in error.errors())
        raise Invalid(
            f"The settings of {method.name} are not valid: {wrong[0].detail}.",
            hint="docs/http.md says where each method's settings are described.",
            errors=wrong,
        ) from error


def plain(config: Any) -> dict[str, Any]:
    """A method's settings as JSON has them."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return document


def fits(edits: int) -> tuple[Fit, ...]:
    """Every method, and whether it is for so many edits."""
    return tuple(
        Fit(
            method=name,
            fits=traits.most_edits is None or edits <= traits.most_edits,
            most_edits=traits.most_edits,
            why=traits.why,
        )
        for name, traits in TRAITS.items()
    )
