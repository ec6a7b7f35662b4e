"""Every error the algorithms raise on purpose.

    EditorError
    ├── ModelNotFound           no usable causal language model under that name
    ├── DeviceUnavailable       the device asked for is not on this machine
    ├── UnknownArchitecture     the anatomy table lacks this architecture
    ├── UnknownParameter        the model has no parameter of that name
    ├── EncoderMismatch         embeddings do not fit the memory or the texts they stand for
    └── InvalidClassifierFile   a saved scope classifier cannot be read

Mistakes of the calling code (a negative count, a missing label) stay ValueError.
"""

from __future__ import annotations


class EditorError(Exception):
    """Base of the errors of `editors`.

    Args:
        detail: What happened, in one sentence that names the thing concerned.
        hint: What to do about it.
    """

    def __init__(self, detail: str, *, hint: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.detail} {self.hint}"


class ModelNotFound(EditorError):
    """No usable causal language model has that name: nothing is there, its files are broken, or it is another kind."""


class DeviceUnavailable(EditorError):
    """The device asked for does not exist on this machine."""


class UnknownArchitecture(EditorError):
    """The anatomy table has no entry for the model's `model_type`."""


class UnknownParameter(EditorError):
    """The model has no parameter of that name."""


class EncoderMismatch(EditorError):
    """Embeddings have another width than the memory, or another count than the texts they stand for."""


class InvalidClassifierFile(EditorError):
    """A saved scope classifier is missing, damaged, or of another kind."""
