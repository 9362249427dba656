"""Calibration images to a table, and a table to an INT8 graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pyedge.calibration.auto import best_methods
from pyedge.calibration.equalization import equalize
from pyedge.calibration.fold_conversions import fold_conversions
from pyedge.calibration.placement import never_negative, place
from pyedge.calibration.quantizer import (
    QuantParams,
    asymmetric_params,
    build_int8,
    levels,
    params_for,
)
from pyedge.calibration.statistics import (
    ChannelRange,
    TensorStatistics,
    channel_ranges,
    histograms,
)
from pyedge.calibration.table import CalibrationTable, TensorCalibration
from pyedge.calibration.thresholds import METHODS, choose
from pyedge.converters.ir import Graph
from pyedge.converters.shapes import sample_shapes
from pyedge.errors import CalibrationError, InvalidArgumentError

Progress = Callable[[str, int, int], None]  # stage, images done, images in all


@dataclass(frozen=True)
class CalibrationOptions:
    """What shapes the quantized network.

    Attributes:
        method: how thresholds are found: "kl", "minmax", "percentile", "mse", or "auto", which
            takes for each tensor whichever of them disturbs the next layers' outputs least.
        percentile: of the magnitudes, for the method of that name.
        equalize: centre and even out channel ranges first (`equalization`).
        bias_correction: keep the mean of every output (`bias_correction`).
        int8_sums: also run the sums and products in INT8 that no convolution absorbs.
        asymmetric: spread the 256 steps of a signed tensor over the range it uses, by a zero
            point of its own, instead of over -threshold…threshold.
    """

    method: str = "kl"
    percentile: float = 99.99
    equalize: bool = True
    bias_correction: bool = True
    int8_sums: bool = False
    asymmetric: bool = True

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, "auto"):
            raise InvalidArgumentError(
                f"method is {self.method!r}; expected {', '.join(METHODS)} or auto"
            )
        if not 50.0 < self.percentile <= 100.0:
            raise InvalidArgumentError(
                f"percentile is {self.percentile}; expected above 50, up to 100"
            )


@dataclass(frozen=True)
class PreparedGraph:
    """A fused graph ready for quantization, equalized if so asked, with its channel ranges."""

    graph: Graph
    ranges: dict[str, ChannelRange]


def calibrate(
    graph: Graph,
    batches: Sequence[np.ndarray],
    model_sha256: str,
    options: CalibrationOptions | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    seen: dict[str, TensorStatistics] | None = None,
) -> CalibrationTable:
    """Runs the calibration images twice through the fused float32 graph.

    Args:
        graph: from `pyedge.converters.passes.optimize`; one input.
        batches: float32 arrays as the network takes them, images along the first axis; read
            twice. Their order, sizes and `threads` do not change the table.
        model_sha256: of the ONNX file the graph came from.
        seen: gets the statistics of each tensor, for a report.

    Raises:
        CalibrationError: no images, or an activation that is not finite.
    """
    options = options or CalibrationOptions()
    images = sum(len(batch) for batch in batches)
    if images == 0:
        raise CalibrationError("calibration: there are no images")
    placement = place(graph, int8_sums=options.int8_sums)
    names = sorted({*placement.i8_tensors, *placement.observed()})
    watched = _reporting(batches, "ranges", images, progress)
    ranges = {
        name: measured.rounded()
        for name, measured in channel_ranges(graph, names, watched, threads).items()
    }
    prepared = _prepare(graph, ranges, options.equalize)
    roots = placement.observed()
    absmax = {name: float(prepared.ranges[name].absmax.max()) for name in roots}
    watched = _reporting(batches, "histograms", images, progress)
    statistics = histograms(prepared.graph, absmax, watched, threads)
    if seen is not None:
        seen.update(statistics)
    never = never_negative(graph)
    unsigned = {name: name in never and statistics[name].minimum >= 0 for name in roots}
    tensors = _choose_all(prepared.graph, statistics, unsigned, batches, options, threads)
    keep_channels = options.equalize or options.bias_correction
    return CalibrationTable(
        model_sha256, images, asdict(options), tensors, ranges if keep_channels else {}
    )


def quantize(graph: Graph, table: CalibrationTable, fp32_layers: Collection[str] = ()) -> Graph:
    """The INT8 graph of a fused float32 graph.

    Args:
        table: made by `calibrate` from this graph.
        fp32_layers: first outputs of nodes to leave in float32.

    Raises:
        CalibrationError: the table lacks a tensor of this graph.
    """
    prepared = prepare(graph, table)
    int8_sums = bool(table.options.get("int8_sums"))
    placement = place(prepared.graph, fp32_layers, int8_sums)
    params = {name: QuantParams(t.scale, t.zero_point) for name, t in table.tensors.items()}
    means = {name: measured.mean for name, measured in prepared.ranges.items()}
    corrected = means if table.options.get("bias_correction") else {}
    return fold_conversions(build_int8(prepared.graph, placement, params, corrected))


def prepare(graph: Graph, table: CalibrationTable) -> PreparedGraph:
    """The graph whose tensors the table describes: equalized where the table says so.

    Raises:
        CalibrationError: the table has another number of channels for a tensor than the graph.
    """
    if table.channels:
        shapes, _ = sample_shapes(graph)
        for name, shape in shapes.items():
            image = name in graph.inputs and len(shape) == 4  # NCHW, unlike all other values
            channels = shape[1] if image else shape[-1]
            if name in table.channels and table.channels[name].mean.size != channels:
                raise CalibrationError(
                    f"calibration table: channels.{name}: has {table.channels[name].mean.size} "
                    f"channels, the model {channels}; calibrate this model"
                )
    return _prepare(graph, table.channels, bool(table.options.get("equalize")))


def _prepare(graph: Graph, ranges: dict[str, ChannelRange], do_equalize: bool) -> PreparedGraph:
    if not do_equalize:
        return PreparedGraph(graph, dict(ranges))
    return PreparedGraph(*equalize(graph, ranges))


def _choose_all(
    graph: Graph,
    statistics: dict[str, TensorStatistics],
    unsigned: dict[str, bool],
    batches: Sequence[np.ndarray],
    options: CalibrationOptions,
    threads: int,
) -> dict[str, TensorCalibration]:
    def calibration(name: str, method: str) -> TensorCalibration:
        seen = statistics[name]
        threshold = choose(method, seen, levels(unsigned[name]), options.percentile)
        if unsigned[name] or not options.asymmetric:
            params = params_for(threshold, unsigned[name])
        else:
            params = asymmetric_params(threshold, seen.minimum, seen.maximum)
        return TensorCalibration(
            seen.minimum, seen.maximum, threshold, params.scale, params.zero_point, method
        )

    if options.method != "auto":
        return {name: calibration(name, options.method) for name in statistics}
    candidates = {
        name: {method: calibration(name, method) for method in METHODS} for name in statistics
    }
    placement = place(graph, int8_sums=options.int8_sums)
    chosen = best_methods(graph, placement, candidates, batches, threads)
    return {name: candidates[name][method] for name, method in chosen.items()}


def _reporting(
    batches: Iterable[np.ndarray], stage: str, images: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        if progress is not None:
            progress(stage, done, images)
