"""Observers: from the distribution of a tensor to the threshold its quantization clips at.

All are functions of one histogram of |x| (`statistics.TensorStatistics`). A threshold is a
positive real; scale = threshold / levels, with 127 levels for symmetric tensors and 255 for
never-negative ones, which use the full range through a zero point of -128.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

HISTOGRAM_BINS = 2048
SYMMETRIC_LEVELS = 127
UNSIGNED_LEVELS = 255
KL_EPSILON = 1e-4
DEFAULT_PERCENTILE = 99.99

Observer = Callable[[np.ndarray, float, int], float]


class _Edges(NamedTuple):
    """Edges of the target bins in source bins, for every candidate threshold (rows)."""

    thresholds: np.ndarray  # int [T]
    floor: np.ndarray  # int [T, targets + 1]: the source bin an edge lies in
    fraction: np.ndarray  # float [T, targets + 1]: how far into it
    cuts: np.ndarray  # float [T, targets + 1]: 1 where an edge cuts a source bin
    whole: np.ndarray  # float [T, targets]: source bins that lie whole in a target bin
    width: np.ndarray  # float [T, 1]: source bins per target bin


@lru_cache(maxsize=2)
def _edges(targets: int, bins: int) -> _Edges:
    thresholds = np.arange(targets, bins)
    numerator = np.arange(targets + 1) * thresholds[:, None]
    floor, remainder = numerator // targets, numerator % targets
    cuts = (remainder > 0).astype(np.float64)
    # Edges lie at least one source bin apart, so this is never negative.
    whole = floor[:, 1:] - floor[:, :-1] - cuts[:, :-1]
    width = thresholds[:, None] / targets
    return _Edges(thresholds, floor, remainder / targets, cuts, whole, width)


def kl_divergences(histogram: np.ndarray, targets: int) -> np.ndarray:
    """KL divergence of the clipped distribution from its quantized form, per threshold.

    `histogram` is int [bins], without zeros. Entry i belongs to a threshold of `targets + i`
    source bins: the bins above fall into the last one kept; the quantized form has `targets`
    bins with fractional edges, spread evenly back over the source bins; both get 1e-4 in every
    bin. This is the procedure of ncnn's ncnn2table. Each term of the sum is constant within a
    target bin except in the source bins that an edge cuts, so a threshold costs a logarithm per
    edge and per target bin instead of one per source bin.
    """
    edges = _edges(targets, histogram.size)
    p = histogram / max(1, int(histogram.sum()))
    mass = np.concatenate([[0.0], np.cumsum(p)])
    entropy = np.concatenate([[0.0], np.cumsum((p + KL_EPSILON) * np.log(p + KL_EPSILON))])

    before = mass.take(edges.floor)
    within = np.append(p, 0.0).take(edges.floor)  # mass of the source bin at an edge
    density = np.diff(before + edges.fraction * within, axis=1) / edges.width

    # Source bins whole within one target bin, then those that an inner edge cuts: these have a
    # part of each neighbour's density. No bin is cut twice.
    weight = before[:, 1:] - (before + edges.cuts * within)[:, :-1] + KL_EPSILON * edges.whole
    cross = np.einsum("tj,tj->t", weight, np.log(density + KL_EPSILON))
    mixed = density[:, 1:] - edges.fraction[:, 1:-1] * np.diff(density, axis=1)
    weight = edges.cuts[:, 1:-1] * (within[:, 1:-1] + KL_EPSILON)
    cross += np.einsum("tj,tj->t", weight, np.log(mixed + KL_EPSILON))

    # The clipped mass goes to the last bin kept, which no edge cuts.
    clipped = 1.0 - mass[edges.thresholds]
    last_p = p[edges.thresholds - 1] + KL_EPSILON
    self_entropy = (
        entropy[edges.thresholds]
        - last_p * np.log(last_p)
        + (last_p + clipped) * np.log(last_p + clipped)
    )
    divergences: np.ndarray = self_entropy - cross
    divergences -= clipped * np.log(density[:, -1] + KL_EPSILON)
    return divergences


def kl_threshold(histogram: np.ndarray, absmax: float, levels: int = SYMMETRIC_LEVELS) -> float:
    """The threshold of least KL divergence: (bins kept + 0.5) * absmax / bins."""
    targets = levels + 1
    best = targets + int(np.argmin(kl_divergences(histogram, targets)))
    return (best + 0.5) * absmax / histogram.size


def minmax_threshold(histogram: np.ndarray, absmax: float, levels: int = SYMMETRIC_LEVELS) -> float:
    """The largest magnitude seen."""
    return absmax


def percentile_threshold(
    histogram: np.ndarray,
    absmax: float,
    levels: int = SYMMETRIC_LEVELS,
    percentile: float = DEFAULT_PERCENTILE,
) -> float:
    """The upper edge of the bin that holds the percentile of the non-zero magnitudes."""
    mass = np.cumsum(histogram)
    index = int(np.searchsorted(mass, mass[-1] * (percentile / 100.0)))
    return (min(index, histogram.size - 1) + 1) * absmax / histogram.size


def mse_curve(histogram: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of clipping at, and rounding to `levels` steps of, each threshold.

    Returns thresholds in bins, float [T], and errors in squared bins, float [T]. Rounding is
    taken as uniform noise, step^2 / 12, for values in the range; clipping is exact but for the
    bin width.
    """
    bins = histogram.size
    thresholds = np.arange(bins // 32, bins + 1, dtype=np.float64)
    centres = np.arange(bins) + 0.5
    p = histogram / max(1, int(histogram.sum()))
    tails = [np.append(np.cumsum((p * centres**k)[::-1])[::-1], 0.0) for k in range(3)]
    at = thresholds.astype(np.int64)
    clipped = tails[2][at] - 2 * thresholds * tails[1][at] + thresholds**2 * tails[0][at]
    return thresholds, clipped + (thresholds / levels) ** 2 / 12 * (1 - tails[0][at])


def mse_threshold(histogram: np.ndarray, absmax: float, levels: int = SYMMETRIC_LEVELS) -> float:
    """The threshold of least mean squared error; see `mse_curve`."""
    thresholds, errors = mse_curve(histogram, levels)
    return float(thresholds[np.argmin(errors)]) * absmax / histogram.size


OBSERVERS: dict[str, Observer] = {
    "kl": kl_threshold,
    "minmax": minmax_threshold,
    "percentile": percentile_threshold,
    "mse": mse_threshold,
}
