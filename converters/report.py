"""What a conversion did and what it cost; plain data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class TensorReport:
    """An i8 activation; `absmax` is the largest magnitude on the calibration images.

    `histogram` counts the magnitudes in equal bins from 0 to `absmax`, zeros left out; empty
    where a table was given.
    """

    name: str
    minimum: float
    maximum: float
    absmax: float
    threshold: float
    scale: float
    zero_point: int
    method: str
    histogram: list[int] = field(default_factory=list)


@dataclass
class LayerReport:
    """A layer's output, INT8 against FP32, with the noise of all layers before it.

    `snr_db` is the power of the signal over that of the difference; None where they are equal
    or the layer runs in FP32 before any INT8 layer.
    """

    name: str
    op: str
    precision: str
    cosine: float | None
    snr_db: float | None


@dataclass
class ConversionReport:
    """What `convert` returns.

    Attributes:
        path, file_bytes, file_sha256: of the file written; onnx_bytes, model_sha256: of its source.
        cosine, cosine_min: mean and least cosine of the outputs with FP32 over the calibration
            images; None where there were none.
        images: how many calibration images the thresholds come from.
        options: of the calibration.
        fp32_layers: layers left in float32.
        sensitivity: mean cosine of the output when only that layer is quantized, if asked for.
        seconds: in all; `timing` by stage.
    """

    path: str
    precision: str
    file_bytes: int
    file_sha256: str
    onnx_bytes: int
    model_sha256: str
    method: str | None = None
    images: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    cosine: float | None = None
    cosine_min: float | None = None
    fp32_layers: list[str] = field(default_factory=list)
    tensors: list[TensorReport] = field(default_factory=list)
    layers: list[LayerReport] = field(default_factory=list)
    sensitivity: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    timing: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
