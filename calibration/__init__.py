"""Calibration and quantization: what images make of activations, and an INT8 graph from that."""

from __future__ import annotations

from .calibrate import CalibrationOptions, calibrate, prepare, quantize
from .sensitivity import layer_sensitivity, mixed_precision
from .table import CalibrationTable, TensorCalibration, format_ncnn, ncnn_weight_scales, parse_ncnn

__all__ = [
    "CalibrationOptions",
    "CalibrationTable",
    "TensorCalibration",
    "calibrate",
    "format_ncnn",
    "layer_sensitivity",
    "mixed_precision",
    "ncnn_weight_scales",
    "parse_ncnn",
    "prepare",
    "quantize",
]
