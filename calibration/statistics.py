"""What calibration images make of each tensor, in two passes: ranges, then histograms.

Everything is a maximum or a sum of integers over single images, so the result does not depend on
the order of the images, on batches or on threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from pyedge import Session, _core
from pyedge.calibration.observers import HISTOGRAM_BINS
from pyedge.converters import native
from pyedge.converters.ir import Graph
from pyedge.errors import CalibrationError

# Images a session runs at a time while its activations are read.
TAP_BATCH = 4


@dataclass(frozen=True)
class ChannelRange:
    """Of each channel (last axis) of a tensor: float64 [C]."""

    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    mean_square: np.ndarray

    @property
    def absmax(self) -> np.ndarray:
        absmax: np.ndarray = np.maximum(np.abs(self.minimum), np.abs(self.maximum))
        return absmax

    @property
    def centre(self) -> np.ndarray:
        centre: np.ndarray = (self.minimum + self.maximum) / 2
        return centre

    def shifted(self, offset: np.ndarray) -> ChannelRange:
        """The ranges of x - offset."""
        square = self.mean_square - 2 * offset * self.mean + offset**2
        return ChannelRange(
            self.minimum - offset, self.maximum - offset, self.mean - offset, np.maximum(square, 0)
        )

    def rounded(self) -> ChannelRange:
        """As a table keeps it: in float32."""
        return ChannelRange(
            *(getattr(self, f.name).astype(np.float32).astype(np.float64) for f in fields(self))
        )

    def scaled(self, factors: np.ndarray) -> ChannelRange:
        """The ranges of x / factors, factors positive."""
        return ChannelRange(
            self.minimum / factors,
            self.maximum / factors,
            self.mean / factors,
            self.mean_square / factors**2,
        )


@dataclass(frozen=True)
class TensorStatistics:
    """Of a whole tensor.

    `histogram` counts |x|, int64 [2048], zeros left out; `peak_mean` and `peak_deviation` are
    mean and standard deviation, over the images, of the largest |x| in an image; `pixels` is the
    number of values an image has in each channel.
    """

    minimum: float
    maximum: float
    histogram: np.ndarray
    peak_mean: float
    peak_deviation: float
    pixels: int

    @property
    def absmax(self) -> float:
        return max(abs(self.minimum), abs(self.maximum))


class _ExactSum:
    """Sums float64 arrays exactly, to 2^-60, whatever the order: as two integers each."""

    _HIGH, _LOW, _LIMIT = 2.0**20, 2.0**40, 2.0**30

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.high = np.zeros(shape, np.int64)
        self.low = np.zeros(shape, np.int64)

    def add(self, values: np.ndarray) -> None:
        scaled = np.clip(values, -self._LIMIT, self._LIMIT) * self._HIGH
        whole = np.floor(scaled)
        self.high += whole.astype(np.int64)
        self.low += np.rint((scaled - whole) * self._LOW).astype(np.int64)

    def total(self) -> np.ndarray:
        return (self.high + self.low / self._LOW) / self._HIGH


class _RangeObserver:
    def __init__(self, channels: int) -> None:
        self.minimum = np.full(channels, np.inf)
        self.maximum = np.full(channels, -np.inf)
        self.mean = _ExactSum((channels,))
        self.mean_square = _ExactSum((channels,))
        self.images = 0

    def add(self, image: np.ndarray) -> None:
        rows = image.reshape(-1, image.shape[-1])
        self.minimum = np.minimum(self.minimum, rows.min(axis=0))
        self.maximum = np.maximum(self.maximum, rows.max(axis=0))
        self.mean.add(rows.mean(axis=0, dtype=np.float64))
        self.mean_square.add(np.einsum("nc,nc->c", rows, rows).astype(np.float64) / len(rows))
        self.images += 1

    def result(self) -> ChannelRange:
        return ChannelRange(
            self.minimum,
            self.maximum,
            self.mean.total() / self.images,
            self.mean_square.total() / self.images,
        )


class _HistogramObserver:
    def __init__(self, absmax: float) -> None:
        self.absmax = absmax
        self.histogram = np.zeros(HISTOGRAM_BINS, np.int64)
        self.minimum, self.maximum = np.inf, -np.inf
        self.peaks = _ExactSum((2,))
        self.images = 0
        self.pixels = 0

    def add(self, image: np.ndarray) -> None:
        self.pixels = max(self.pixels, image.size // max(1, image.shape[-1] if image.ndim else 1))
        low, high = float(image.min()), float(image.max())
        peak = max(abs(low), abs(high))
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.peaks.add(np.array([peak, peak * peak]))
        self.images += 1
        if self.absmax >= np.finfo(np.float32).tiny:
            self.histogram += _core.histogram_abs(image, HISTOGRAM_BINS, self.absmax)

    def result(self) -> TensorStatistics:
        mean, mean_square = self.peaks.total() / max(1, self.images)
        deviation = float(np.sqrt(max(0.0, mean_square - mean * mean)))
        return TensorStatistics(
            self.minimum, self.maximum, self.histogram, float(mean), deviation, self.pixels
        )


def tap_images(
    session: Session, batches: Iterable[np.ndarray], names: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    """The named activations of each image, without the batch axis.

    An activation that does not have the batch as its first axis comes once, whole.
    """
    for batch in batches:
        for start in range(0, len(batch), TAP_BATCH):
            part = np.ascontiguousarray(batch[start : start + TAP_BATCH])
            taps = session.run_taps(part, names)
            for index in range(len(part)):
                yield {name: value[index] for name, value in taps.items()}


def channel_ranges(
    graph: Graph, names: Sequence[str], batches: Iterable[np.ndarray], threads: int = 1
) -> dict[str, ChannelRange]:
    """The first pass.

    Raises:
        CalibrationError: no images, or an activation that is not finite.
    """
    session = Session(native.write(graph), threads=threads)
    observers: dict[str, _RangeObserver] = {}
    for taps in tap_images(session, batches, names):
        for name, value in taps.items():
            if name in graph.inputs and value.ndim == 3:  # NCHW, unlike all other values
                value = np.moveaxis(value, 0, -1)
            if not np.isfinite(value).all():
                raise CalibrationError(
                    f"tensor {name}: holds NaN or infinity on the calibration images"
                )
            channels = value.shape[-1] if value.ndim else 1
            observers.setdefault(name, _RangeObserver(channels)).add(value.reshape(-1, channels))
    if not observers and names:
        raise CalibrationError("calibration: there are no images")
    return {name: observers[name].result() for name in names}


def histograms(
    graph: Graph, absmax: dict[str, float], batches: Iterable[np.ndarray], threads: int = 1
) -> dict[str, TensorStatistics]:
    """The second pass: of each tensor named in `absmax`, over [0, absmax]."""
    session = Session(native.write(graph), threads=threads)
    observers = {name: _HistogramObserver(value) for name, value in absmax.items()}
    for taps in tap_images(session, batches, list(absmax)):
        for name, value in taps.items():
            observers[name].add(np.ascontiguousarray(value))
    return {name: observer.result() for name, observer in observers.items()}
