"""The weight editors there are: name -> method, the only list."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from editors.errors import UnknownMethod
from editors.method import Method
from editors.methods.fine_tuning.editor import FineTuning
from editors.methods.mend.editor import Mend
from editors.methods.rome.editor import Rome

METHODS: MappingProxyType[str, Method[Any]] = MappingProxyType(
    {
        FineTuning.name: FineTuning(),
        Rome.name: Rome(),
        Mend.name: Mend(),
    }
)


def method_named(name: str) -> Method[Any]:
    """The method of that name.

    Raises:
        UnknownMethod: There is none.
    """
    if name not in METHODS:
        raise UnknownMethod(f"There is no weight editor {name!r}.", hint=f"There are {', '.join(METHODS)}.")
    return METHODS[name]
