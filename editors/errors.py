"""Every error the algorithms raise on purpose.

    EditorError
    ├── ModelNotFound           no usable causal language model under that name
    ├── DeviceUnavailable       the device asked for is not on this machine
    ├── UnknownArchitecture     the anatomy table lacks this architecture
    ├── UnknownParameter        the model has no parameter of that name
    ├── EncoderMismatch         embeddings do not fit the memory or the texts they stand for
    ├── InvalidClassifierFile   a saved scope classifier cannot be read
    ├── ContextExceeded         a text and its answer do not fit in the model's context
    ├── InvalidTrainingData     a file of training examples cannot be used
    ├── InvalidCheckpoint       a training's checkpoint is damaged, or of another training
    ├── InvalidDataset          a file of cases cannot be read, or a record in it is bad
    ├── UnknownMethod           no weight editor of that name is registered
    ├── SubjectNotFound         a prompt does not hold the subject given, or holds none that can be found
    ├── EmptyTarget             a target has no token
    ├── StatisticsNotFound      no usable key covariance for this model and site
    ├── TrainedEditorNotFound   no usable trained editor for this model
    ├── TrainedEditorMismatch   a trained editor belongs to another base model
    ├── TrainingDiverged        a training came to numbers that are infinite or undefined
    ├── InvalidDeltaFile        a saved delta cannot be read
    ├── DeltaMismatch           a delta was made for another base model
    └── EditFailed              a weight editor's result cannot be used, or memory ran out before there was one
        ├── NonFiniteEdit       it holds numbers that are infinite or undefined
        ├── IneffectiveEdit     it does not make the target likelier
        └── DisablingEdit       it changes more than any edit should

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


class ContextExceeded(EditorError):
    """A text and its answer take more tokens than the model's context holds."""


class InvalidTrainingData(EditorError):
    """A file of training examples is missing, malformed, contradicts itself, or holds too little to learn from."""


class InvalidCheckpoint(EditorError):
    """A training's checkpoint is damaged, was made by another training, or is in the way of a new one."""


class InvalidDataset(EditorError):
    """A file of cases is missing, damaged or empty, of no known format, or has a bad record."""


class UnknownMethod(EditorError):
    """No weight editor of that name is registered."""


class SubjectNotFound(EditorError):
    """A prompt does not hold the subject given, or none was given and none can be found in it."""


class EmptyTarget(EditorError):
    """A target has no token, so there is nothing to make likelier."""


class StatisticsNotFound(EditorError):
    """The key covariance of this model at this site was never collected, or its file is damaged."""


class TrainedEditorNotFound(EditorError):
    """The editor of this model was never trained, or its file is damaged."""


class TrainedEditorMismatch(EditorError):
    """A trained editor belongs to another base model, or does not fit the weights of this one."""


class TrainingDiverged(EditorError):
    """A training's loss is infinite or undefined; what it had written so far is as it was."""


class InvalidDeltaFile(EditorError):
    """A saved delta is missing, damaged, or of a format that this version does not read."""


class DeltaMismatch(EditorError):
    """A delta was made for another base model, or does not fit the weights that it names."""


class EditFailed(EditorError):
    """What a weight editor computed cannot be used, or there was no memory to compute it; the base is as it was."""


class NonFiniteEdit(EditFailed):
    """The delta holds numbers that are infinite or undefined."""


class IneffectiveEdit(EditFailed):
    """With the delta installed, a target is no likelier than before."""


class DisablingEdit(EditFailed):
    """With the delta installed, weights or unrelated answers have changed more than any edit should change them."""
