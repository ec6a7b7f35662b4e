"""Looking at activations and changing them, by hooks that last as long as a `with` block.

Hooks go on the model they are given, so give a view: hooks on a view never fire on the base. A place is an index into
a batch laid out row by row, row * tokens + token, because some modules see a batch as [rows, tokens, width] and some
(OPT's MLP) as [rows * tokens, width]. Where a module returns a tuple, its first element is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Capture:
    """What a module read and wrote in the latest forward pass.

    Args:
        places: Where to look; everywhere when None.
    """

    def __init__(self, places: Tensor | None = None) -> None:
        self._places = places
        self._read: Tensor | None = None
        self._written: Tensor | None = None

    @property
    def input(self) -> Tensor:
        """[places, width], in the model's dtype; of a module that is given it by position, as linear ones are."""
        return _run(self._read)

    @property
    def output(self) -> Tensor:
        """[places, width], in the model's dtype."""
        return _run(self._written)

    def _hook(self, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._read = self._at_places(inputs[0]) if inputs else None
        self._written = self._at_places(_first(output))

    def _at_places(self, activation: Tensor) -> Tensor:
        rows = _rows(activation)
        return rows if self._places is None else rows[self._places]


@contextmanager
def captured(model: nn.Module, path: str, places: Tensor | None = None) -> Iterator[Capture]:
    """Keep what the module at a path reads and writes.

    Args:
        model: A view.
        path: As `model.get_submodule` takes it.
        places: Where to look; everywhere when None.
    """
    capture = Capture(places)
    with _hooked(lambda: model.get_submodule(path).register_forward_hook(capture._hook)):
        yield capture


@contextmanager
def written(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """Keep all that modules write, in order, by path; those that have not run are not there.

    Args:
        model: A view.
        paths: As `model.get_submodule` takes them.
    """
    seen: dict[str, list[Any]] = {}
    with ExitStack() as hooks:
        for path in paths:
            hook = partial(_keep, seen, path)
            hooks.enter_context(_hooked(partial(model.get_submodule(path).register_forward_hook, hook)))
        yield seen


@contextmanager
def added(model: nn.Module, path: str, places: Tensor, value: Tensor) -> Iterator[None]:
    """Add a value [width] or [places, width] to what a module writes; gradients flow into it."""

    def add(rows: Tensor) -> Tensor:
        return rows.index_add(0, places, value.to(rows.dtype).expand(len(places), rows.shape[1]))

    with _rewritten(model, path, add):
        yield


@contextmanager
def replaced(model: nn.Module, path: str, places: Tensor, value: Tensor) -> Iterator[None]:
    """Put a value [width] or [places, width] in the place of what a module writes; gradients flow into it."""

    def replace(rows: Tensor) -> Tensor:
        return rows.index_copy(0, places, value.to(rows.dtype).expand(len(places), rows.shape[1]))

    with _rewritten(model, path, replace):
        yield


@contextmanager
def reweighted(model: nn.Module, path: str, change: Tensor) -> Iterator[None]:
    """Let a linear module compute as if a change [out, in] were added to its weight; gradients flow into the change."""

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + inputs[0] @ change.to(output.dtype).T

    with _hooked(lambda: model.get_submodule(path).register_forward_hook(hook)):
        yield


@contextmanager
def narrowed(model: nn.Module, path: str, places: Tensor) -> Iterator[None]:
    """Let a module read a few places alone, as one row: it gets [1, places, width] of its input.

    For the head, whose width is the vocabulary's, so that logits are computed where they are needed and nowhere else.
    """

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return _rows(inputs[0])[places][None], *inputs[1:]

    with _hooked(lambda: model.get_submodule(path).register_forward_pre_hook(hook)):
        yield


@contextmanager
def ending_at(model: nn.Module, path: str) -> Iterator[None]:
    """End a forward pass, and the block with it, once the module at a path has run: the rest has nothing to add."""

    def hook(*_: object) -> None:
        raise _Reached

    with suppress(_Reached), _hooked(lambda: model.get_submodule(path).register_forward_hook(hook)):
        yield


class _Reached(Exception):
    """The pass has come as far as it is needed."""


def _keep(seen: dict[str, list[Any]], path: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
    seen.setdefault(path, []).append(output)


@contextmanager
def _rewritten(model: nn.Module, path: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        activation = _first(output)
        changed = change(_rows(activation)).view_as(activation)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    with _hooked(lambda: model.get_submodule(path).register_forward_hook(hook)):
        yield


@contextmanager
def _hooked(register: Callable[[], RemovableHandle]) -> Iterator[None]:
    handle = register()
    try:
        yield
    finally:
        handle.remove()


def _run(seen: Tensor | None) -> Tensor:
    if seen is None:
        raise RuntimeError("the module has not run within the `with` block yet")
    return seen


def _first(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def _rows(activation: Tensor) -> Tensor:
    """[rows * tokens, width]."""
    return activation.reshape(-1, activation.shape[-1])
