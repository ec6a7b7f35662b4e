"""Views: copies of a model's structure that share its tensors and own only those that an edit changes.

A version is served, and a delta computed, on a view, so the base stays bit-identical by construction and undoing is
dropping the view. Not covered: tensors that a module keeps as plain attributes, which a view copies.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn

from editors.errors import UnknownParameter

Module = TypeVar("Module", bound=nn.Module)


def view(model: Module, owned: Iterable[str] = ()) -> Module:
    """A copy of the module tree that shares the model's tensors, except fresh copies of the named parameters.

    A view has its own hooks, config, gradients and `requires_grad` flags, and may be moved or cast as a whole: none of
    this reaches the model. Writing in place to a parameter that the view does not own does, so own what you write.
    Tied parameters stay tied: to own one name of a tied tensor is to own them all.

    Args:
        model: The base, or another view.
        owned: Parameter names, as in `model.named_parameters(remove_duplicate=False)`.

    Raises:
        UnknownParameter: A name is not one of the model's parameters.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    fresh = {id(_parameter(parameters, name)) for name in owned}
    memo: dict[int, object] = {id(p): _alias(p) for p in parameters.values() if id(p) not in fresh}
    memo |= {id(buffer): buffer.detach() for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _alias(parameter: nn.Parameter) -> nn.Parameter:
    """Another parameter on the same memory: its flags, gradient and placement are its own."""
    return nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)


def _parameter(parameters: dict[str, nn.Parameter], name: str) -> torch.Tensor:
    if name not in parameters:
        close = difflib.get_close_matches(name, parameters, n=1)
        raise UnknownParameter(
            f"The model has no parameter {name!r}.",
            hint=f"Did you mean {close[0]!r}?" if close else "model.named_parameters() lists them.",
        )
    return parameters[name]
