"""Which threshold a method takes for a tensor."""

from __future__ import annotations

from pyedge.calibration.observers import (
    kl_threshold,
    minmax_threshold,
    mse_threshold,
    percentile_threshold,
)
from pyedge.calibration.statistics import TensorStatistics
from pyedge.errors import InvalidArgumentError

METHODS = ("kl", "minmax", "percentile", "mse")

# Vectors (one value per channel and image: gates, pooled features) show few values in
# calibration, and clipping one of them moves the whole image. They get room for as many standard
# deviations of their largest magnitude, up to twice what was seen.
VECTOR_DEVIATIONS = 5.0
VECTOR_ROOM = 2.0


def choose(method: str, statistics: TensorStatistics, levels: int, percentile: float) -> float:
    """The threshold of one tensor, 0 where it is zero everywhere.

    "kl" clips no more than mean squared error would: the divergence weighs a rare large value by
    its frequency alone, and embeddings live off such values.
    """
    absmax, histogram = statistics.absmax, statistics.histogram
    if absmax == 0:
        return 0.0
    if method == "kl":
        threshold = max(
            kl_threshold(histogram, absmax, levels), mse_threshold(histogram, absmax, levels)
        )
    elif method == "mse":
        threshold = mse_threshold(histogram, absmax, levels)
    elif method == "percentile":
        return percentile_threshold(histogram, absmax, levels, percentile)
    elif method == "minmax":
        return minmax_threshold(histogram, absmax, levels)
    else:
        raise InvalidArgumentError(f"method is {method!r}; expected {', '.join(METHODS)} or auto")
    if statistics.pixels == 1:
        room = statistics.peak_mean + VECTOR_DEVIATIONS * statistics.peak_deviation
        threshold = max(threshold, min(room, VECTOR_ROOM * absmax))
    return threshold
