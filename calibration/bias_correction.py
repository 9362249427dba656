"""Bias correction: rounded weights must not shift the mean of an output.

E[W_q x] - E[W x] = (W_q - W) E[x] is subtracted from the bias, per output channel (Nagel et al.,
ICCV 2019, eq. 17, with the mean of the input measured on the calibration images).
"""

from __future__ import annotations

import numpy as np


def corrected_bias(
    weight: np.ndarray,
    quantized: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray | None,
    input_mean: np.ndarray,
    groups: int,
) -> np.ndarray:
    """float32 [O].

    Args:
        weight, quantized: [O, ..., I/groups], float32 and int8.
        scale: float32 [O].
        input_mean: float64 [I], of each input channel. Padding counts as if it had the mean.
    """
    outputs = weight.shape[0]
    restored = quantized.astype(np.float64) * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    error = (restored - weight).reshape(outputs, -1, weight.shape[-1]).sum(axis=1)  # over taps
    means = np.repeat(input_mean.reshape(groups, -1), outputs // groups, axis=0)
    shift = (error * means).sum(axis=1)
    original = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    corrected: np.ndarray = (original - shift).astype(np.float32)
    return corrected
