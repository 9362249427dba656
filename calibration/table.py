"""The calibration table: one JSON schema, and ncnn's `.table`.

A table belongs to the model whose SHA-256 it carries: used with another it is an error, because
the tensors of two models may well have the same names.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from pyedge.calibration.statistics import ChannelRange
from pyedge.errors import CalibrationError, InvalidArgumentError
from pyedge.files import write_atomically

SCHEMA = "pyedge.calibration"
VERSION = 1
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class TensorCalibration:
    """One tensor: what was seen, and real = scale * (q - zero_point) chosen from it."""

    minimum: float
    maximum: float
    threshold: float
    scale: float
    zero_point: int
    method: str


@dataclass(frozen=True)
class CalibrationTable:
    """Everything a quantization needs beside the model.

    Attributes:
        model_sha256: of the bytes of the ONNX file.
        images: how many calibration images there were.
        options: plain values; those that shape the network (see `CalibrationOptions`).
        tensors: by name in the fused graph.
        channels: ranges of the fused network's channels, in float32, from which equalization
            and bias correction follow. Empty where neither was asked for.
    """

    model_sha256: str
    images: int
    options: dict[str, Any]
    tensors: dict[str, TensorCalibration]
    channels: dict[str, ChannelRange] = field(default_factory=dict)

    def check_model(self, sha256: str) -> None:
        """Raises CalibrationError where the table belongs to another model."""
        if sha256 != self.model_sha256:
            raise CalibrationError(
                f"calibration table: belongs to the model with SHA-256 {self.model_sha256[:16]}…, "
                f"not to this one ({sha256[:16]}…); calibrate this model"
            )

    def to_json(self) -> str:
        """The same bytes for the same calibration, keys sorted."""
        document = {
            "schema": SCHEMA,
            "version": VERSION,
            "model_sha256": self.model_sha256,
            "images": self.images,
            "options": self.options,
            "tensors": {name: asdict(tensor) for name, tensor in self.tensors.items()},
            "channels": {name: _encode(ranges) for name, ranges in self.channels.items()},
        }
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        write_atomically(path, self.to_json().encode())

    @classmethod
    def from_json(cls, text: str, source: str = "calibration table") -> CalibrationTable:
        """Raises CalibrationError for anything that is not a table of this version."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CalibrationError(f"{source}: not JSON: {error}") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise CalibrationError(f'{source}: schema: expected "{SCHEMA}"')
        if document.get("version") != VERSION:
            raise CalibrationError(
                f"{source}: version: is {document.get('version')!r}, this pyedge reads {VERSION}"
            )
        try:
            return cls._parse(document)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
            raise CalibrationError(f"{source}: {reason}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CalibrationTable:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CalibrationError(f"{path}: not UTF-8") from error
        except OSError as error:
            raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
        return cls.from_json(text, str(path))

    @classmethod
    def _parse(cls, document: dict[str, Any]) -> CalibrationTable:
        sha256, images = document["model_sha256"], document["images"]
        if not isinstance(sha256, str) or len(sha256) != 64 or not set(sha256) <= _HEX:
            raise ValueError("model_sha256: expected 64 hexadecimal digits")
        if not isinstance(images, int) or isinstance(images, bool) or images < 1:
            raise ValueError("images: expected a whole number from 1")
        if not isinstance(document["options"], dict):
            raise ValueError("options: expected an object")
        tensors = {name: _parse_tensor(name, value) for name, value in document["tensors"].items()}
        channels = {
            name: _decode(f"channels.{name}", value) for name, value in document["channels"].items()
        }
        return cls(sha256, images, document["options"], tensors, channels)


def _parse_tensor(name: str, value: Mapping[str, Any]) -> TensorCalibration:
    where = f"tensors.{name}"
    scale, zero_point = _finite(f"{where}.scale", value["scale"]), value["zero_point"]
    if not 1e-30 <= scale <= 1e30:
        raise ValueError(f"{where}.scale: expected a positive number, got {scale}")
    if type(zero_point) is not int or not -128 <= zero_point <= 127:
        raise ValueError(f"{where}.zero_point: expected -128…127, got {zero_point!r}")
    return TensorCalibration(
        _finite(f"{where}.minimum", value["minimum"]),
        _finite(f"{where}.maximum", value["maximum"]),
        _finite(f"{where}.threshold", value["threshold"]),
        scale,
        zero_point,
        str(value["method"]),
    )


def _encode(ranges: ChannelRange) -> dict[str, str]:
    """Each array as base64 of little-endian float32."""
    return {
        f.name: base64.b64encode(getattr(ranges, f.name).astype("<f4").tobytes()).decode()
        for f in fields(ranges)
    }


def _decode(where: str, value: Mapping[str, Any]) -> ChannelRange:
    arrays = [
        np.frombuffer(base64.b64decode(value[f.name], validate=True), "<f4").astype(np.float64)
        for f in fields(ChannelRange)
    ]
    if len({array.size for array in arrays}) != 1 or not all(np.isfinite(a).all() for a in arrays):
        raise ValueError(f"{where}: expected finite arrays of one length")
    return ChannelRange(*arrays)


def _finite(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value!r}")
    return float(value)


def format_ncnn(weights: Mapping[str, np.ndarray], activations: Mapping[str, float]) -> str:
    """The text of ncnn's `.table`.

    Args:
        weights: by layer, the factor 127 / |w| of each output channel (or group).
        activations: by layer, the factor 127 / threshold of its input.
    """
    lines = [
        f"{name}_param_0 " + "".join(f"{np.float32(scale):f} " for scale in scales)
        for name, scales in weights.items()
    ]
    lines += [f"{name} {np.float32(scale):f} " for name, scale in activations.items()]
    return "".join(f"{line}\n" for line in lines)


def parse_ncnn(text: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Weights and activations, as `format_ncnn` takes them.

    Raises:
        CalibrationError: a line that is not a name and numbers.
    """
    weights: dict[str, np.ndarray] = {}
    activations: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, *values = line.split()[:1] + line.split()[1:] or [""]
        if not name:
            continue
        try:
            scales = [float(value) for value in values]
        except ValueError as error:
            raise CalibrationError(f"ncnn table, line {number}: {error}") from error
        if not scales or not all(map(math.isfinite, scales)):
            raise CalibrationError(f"ncnn table, line {number}: expected a name and its scales")
        if name.endswith("_param_0"):
            weights[name.removesuffix("_param_0")] = np.array(scales, np.float32)
        else:
            activations[name] = scales[0]
    return weights, activations


def ncnn_weight_scales(
    weight: np.ndarray, kernel: int, stride: int, dilation: int, groups: int
) -> np.ndarray:
    """The factors ncnn quantizes a layer's weight with: float32 per output channel, per group
    where there are several.

    127 / absmax, but 31 / absmax for dense 3x3 convolutions of stride and dilation 1, whose
    INT8 Winograd transform needs the room.
    """
    if weight.ndim < 2:
        raise InvalidArgumentError(f"weight has shape {weight.shape}; expected [O, ..., I]")
    rows = groups if groups > 1 else weight.shape[0]
    absmax = np.abs(weight).reshape(rows, -1).max(axis=1)
    levels = 31 if (kernel, stride, dilation, groups) == (3, 1, 1, 1) else 127
    scales: np.ndarray = np.divide(
        np.float32(levels), absmax, out=np.ones_like(absmax), where=absmax > 0
    )
    return scales
