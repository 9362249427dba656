"""The one exception tree. A message names the file, the field and what would be right."""

from __future__ import annotations


class PyEdgeError(Exception):
    """Everything pyedge raises on purpose."""


class InvalidModelError(PyEdgeError):
    """Bytes that are not a model this version can read, or an ONNX model that lies."""


class InvalidArgumentError(PyEdgeError, ValueError):
    """A wrong shape, dtype, name or option from the caller."""


class UnsupportedError(PyEdgeError):
    """Understood, but not supported: an operation, an instruction set, a missing extra."""


class InvalidImageError(PyEdgeError):
    """An image that cannot be decoded whole, or is larger than the pixel cap."""


class CalibrationError(PyEdgeError):
    """No images, a table of another model, an activation that is never finite."""


class CheckpointError(PyEdgeError):
    """A checkpoint that cannot be read whole or written: a shard missing, another digest."""


class TrainingError(PyEdgeError):
    """A run that cannot go on: a loss that is no number, a rank that died."""


class LostRankError(TrainingError):
    """Another rank has failed, has ended or does not answer: the cause is to be found there."""
