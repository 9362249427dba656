"""An ONNX model to a native file."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyedge import Session, __version__
from pyedge.calibration import (
    CalibrationOptions,
    CalibrationTable,
    calibrate,
    layer_sensitivity,
    mixed_precision,
    ncnn,
    prepare,
    quantize,
)
from pyedge.calibration.auto import representative
from pyedge.calibration.placement import MAC_OPS
from pyedge.calibration.sensitivity import cosines, output_cosines, outputs
from pyedge.calibration.statistics import TensorStatistics
from pyedge.converters import native
from pyedge.converters.arguments import (
    check_float_options,
    check_input_shape,
    check_paths,
    default_threads,
)
from pyedge.converters.calibration_data import calibration_batches
from pyedge.converters.half_weights import halve_weights
from pyedge.converters.ir import Graph
from pyedge.converters.onnx_import import import_onnx
from pyedge.converters.passes import optimize
from pyedge.converters.report import ConversionReport, LayerReport, TensorReport
from pyedge.errors import InvalidArgumentError, InvalidModelError, UnsupportedError
from pyedge.files import write_atomically
from pyedge.metadata import Metadata, Preprocessing
from pyedge.session import check_threads

Progress = Callable[[str, int, int], None]  # what is going on, done, of how many

# Images on which layers are compared, sensitivities measured and mixed precision decided.
JUDGED_IMAGES = 16
_REPORTED_BINS = 128
_DEFAULTS = asdict(CalibrationOptions())


def convert(
    onnx_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    precision: str = "fp32",
    calibration: Iterable[np.ndarray] | str | os.PathLike[str] | CalibrationTable | None = None,
    method: str = "kl",
    preprocessing: Mapping[str, Any] | Preprocessing | str | os.PathLike[str] | None = None,
    *,
    percentile: float = 99.99,
    equalize: bool = True,
    bias_correction: bool = True,
    int8_sums: bool = False,
    fp32_layers: Sequence[str] = (),
    target_cosine: float | None = None,
    sensitivity: bool = False,
    fp16_weights: bool = False,
    save_table: str | os.PathLike[str] | None = None,
    input_shape: Any = None,
    allow_external_data: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Converts an ONNX model to a native file, in FP32 or quantized to INT8.

    Args:
        onnx_path: the model; opset 11 to 21.
        out_path: the file to write. It is there whole afterwards, or as it was before.
        precision: "fp32" or "int8".
        calibration: for INT8 (unused for FP32): float32 batches in the model's layout, a folder
            of images or of `.npy` arrays, a table (or the path of one, `.json`) made from this
            very model, or ncnn's `.table` with the names of this model's layers.
        method: "kl" (2,048-bin divergence that clips no more than "mse" would), "minmax",
            "percentile", "mse", or "auto". A table brings its own.
        preprocessing: a `Metadata`, `Preprocessing`, their values as a mapping, or a TOML file.
        percentile: of the magnitudes, for that method.
        equalize, bias_correction, int8_sums: see `CalibrationOptions`. A table brings its own.
        fp32_layers: names of layers (as in the report) to leave in float32.
        target_cosine: leave the most sensitive layers in float32 until the mean cosine of the
            output on calibration images is this. Needs images.
        sensitivity: also measure how much each layer alone turns the output. Needs images.
        fp16_weights: store the weights of layers in float32 in half precision. The file gets
            smaller, the layers still compute in float32.
        save_table: also write the calibration table there; as ncnn's where it ends in `.table`,
            which needs equalize=False.
        input_shape, allow_external_data: see `import_onnx`. Without the first, an open height
            and width are those of the preprocessing's input_size.
        threads: of the sessions that calibrate; all cores by default. Does not change the result.
        progress: called with what is going on, how much is done, of how much.

    Raises:
        InvalidModelError, UnsupportedError: of the model.
        CalibrationError: no images, a table of another model, activations that are not finite, a
            target out of reach.
        InvalidImageError: a calibration image that cannot be decoded; it is named.
        InvalidArgumentError: options that contradict each other (those of INT8 with "fp32" too),
            arrays of a wrong shape, a file to write that is one to read.
        PyEdgeError: the file cannot be written; nothing is left half-written.
    """
    if precision not in ("fp32", "int8"):
        raise InvalidArgumentError(f"precision is {precision!r}; expected fp32 or int8")
    if precision == "int8" and calibration is None:
        raise InvalidArgumentError("calibration: is missing; INT8 needs images or a table")
    if target_cosine is not None and not (
        isinstance(target_cosine, int | float) and 0.0 < target_cosine <= 1.0
    ):
        raise InvalidArgumentError(f"target_cosine is {target_cosine!r}; expected in (0, 1]")
    if threads is not None:
        check_threads(threads)
    check_input_shape(input_shape)
    options = CalibrationOptions(method, percentile, equalize, bias_correction, int8_sums=int8_sums)
    if precision == "fp32":
        asked = {name: getattr(options, name) for name in _DEFAULTS if name != "method"}
        asked |= {"target_cosine": target_cosine, "save_table": save_table}
        asked |= {"sensitivity": sensitivity or None}
        check_float_options({**asked, "fp32_layers": fp32_layers or None}, _DEFAULTS)
    if save_table is not None:
        _check_table_formats(calibration, save_table, equalize)
    read = {"the model": onnx_path, "calibration": calibration, "preprocessing": preprocessing}
    check_paths(read, {"out_path": out_path, "save_table": save_table})
    clock = _Clock()
    with clock.stage("import"):
        metadata = _given_metadata(preprocessing)
        source, graph = _import(onnx_path, allow_external_data, input_shape, metadata.input_size)
        graph.metadata = _completed(metadata, graph, source)
    report = ConversionReport(str(out_path), precision, 0, "", source.size, source.sha256)
    made = halve_weights(graph) if fp16_weights else graph
    if precision == "int8":
        assert calibration is not None
        job = _Int8Job(
            graph, source.sha256, calibration, options, threads or default_threads(), progress
        )
        made = job.run(report, clock, fp32_layers, target_cosine, sensitivity, fp16_weights)
        if save_table is not None:
            job.save_table(save_table)
    with clock.stage("write"):
        with _named(onnx_path):
            data = native.write(made)
            Session(data)  # what is written can be read
        write_atomically(out_path, data)
    report.file_bytes, report.file_sha256 = len(data), hashlib.sha256(data).hexdigest()
    report.timing, report.seconds = clock.stages, clock.total()
    return report


def _check_table_formats(calibration: Any, save_table: Any, equalize: bool) -> None:
    is_path = isinstance(calibration, str | os.PathLike)
    source = Path(calibration).suffix if is_path else ""
    to_ncnn = isinstance(save_table, str | os.PathLike) and Path(save_table).suffix == ncnn.SUFFIX
    from_table = source == ".json" or isinstance(calibration, CalibrationTable)
    if source == ncnn.SUFFIX and not Path(calibration).is_dir():
        raise InvalidArgumentError("save_table: needs images or a .json table, not ncnn's .table")
    if to_ncnn and equalize and not from_table:
        raise InvalidArgumentError(
            f"save_table: {save_table}: ncnn's .table needs equalize=False (--no-equalize)"
        )


@dataclass(frozen=True)
class _Source:
    name: str
    size: int
    sha256: str


def _import(
    path: str | os.PathLike[str],
    allow_external_data: bool,
    input_shape: Any,
    input_size: tuple[int, int],
) -> tuple[_Source, Graph]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidModelError(f"{path}: cannot be read: {error.strerror}") from error
    source = _Source(Path(path).stem, len(data), hashlib.sha256(data).hexdigest())
    with _named(path):
        graph = import_onnx(
            path,
            allow_external_data=allow_external_data,
            input_shape=input_shape,
            input_size=input_size,
        )
        return source, optimize(graph)


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors about the model name its file."""
    try:
        yield
    except (InvalidArgumentError, InvalidModelError, UnsupportedError) as error:
        if os.fspath(path) in str(error):
            raise
        raise type(error)(f"{os.fspath(path)}: {error}") from error


def _given_metadata(
    given: Mapping[str, Any] | Preprocessing | str | os.PathLike[str] | None,
) -> Metadata:
    if given is None:
        return Metadata()
    if isinstance(given, Metadata):
        return replace(given)
    if isinstance(given, Preprocessing):
        return Metadata(**{f.name: getattr(given, f.name) for f in fields(Preprocessing)})
    if isinstance(given, Mapping):
        return Metadata.from_dict(given)
    if isinstance(given, str | os.PathLike):
        return Metadata.from_toml(given)
    raise InvalidArgumentError(
        f"preprocessing is {type(given).__name__}; expected a mapping or the path of a TOML file"
    )


def _completed(metadata: Metadata, graph: Graph, source: _Source) -> Metadata:
    """What the caller says of the model, completed by what the model itself shows."""
    if metadata.input_size == (0, 0):
        metadata.input_size = graph.metadata.input_size
    metadata.model_name = metadata.model_name or source.name
    metadata.producer = f"pyedge {__version__}"
    if metadata.color != "none" and not metadata.embedding_size:
        metadata.embedding_size = _embedding_size(graph, metadata)
    if metadata.embedding_size and not metadata.feature_space:
        metadata.feature_space = f"{metadata.model_name}-{source.sha256[:12]}"
    return metadata


def _embedding_size(graph: Graph, metadata: Metadata) -> int:
    """The length of the one vector an image becomes, 0 where the network gives something else."""
    width, height = metadata.input_size
    if 0 in metadata.input_size or len(graph.outputs) != 1 or len(graph.inputs) != 1:
        return 0
    (output,) = Session(native.write(graph)).run(np.zeros((1, 3, height, width), np.float32))
    return int(output.size) if output.ndim >= 2 and output.size == output.shape[1] else 0


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - start

    def total(self) -> float:
        return time.perf_counter() - self._start


class _Int8Job:
    """Calibrates, quantizes and measures one model."""

    def __init__(
        self,
        graph: Graph,
        model_sha256: str,
        calibration: Iterable[np.ndarray] | str | os.PathLike[str] | CalibrationTable,
        options: CalibrationOptions,
        threads: int,
        progress: Progress | None,
    ) -> None:
        if len(graph.inputs) != 1:
            raise InvalidArgumentError(
                f"the model has {len(graph.inputs)} inputs; INT8 is for models with one"
            )
        self.graph, self.options, self.threads = graph, options, threads
        self.model_sha256, self.progress = model_sha256, progress
        self.batches: Sequence[np.ndarray] = ()
        self.seen: dict[str, TensorStatistics] = {}
        self.table = self._given_table(calibration)
        if self.table is None:
            self.batches = calibration_batches(calibration, graph, graph.metadata)  # type: ignore[arg-type]

    def _given_table(self, calibration: Any) -> Any:
        if isinstance(calibration, str | os.PathLike):
            path = Path(calibration)
            if path.suffix == ncnn.SUFFIX and not path.is_dir():
                return ncnn.load_ncnn(path, self.graph, self.model_sha256)
            if path.suffix == ".json":
                calibration = CalibrationTable.load(path)
        if not isinstance(calibration, CalibrationTable):
            return None
        calibration.check_model(self.model_sha256)
        return calibration

    def run(
        self,
        report: ConversionReport,
        clock: _Clock,
        fp32_layers: Sequence[str],
        target_cosine: float | None,
        sensitivity: bool,
        fp16_weights: bool,
    ) -> Graph:
        if (target_cosine is not None or sensitivity) and not len(self.batches):
            raise InvalidArgumentError(
                "target_cosine and sensitivity need calibration images, not a table"
            )
        with clock.stage("calibrate"):
            if self.table is None:
                self.table = calibrate(
                    self.graph,
                    self.batches,
                    self.model_sha256,
                    self.options,
                    self.threads,
                    self.progress,
                    self.seen,
                )
        spared = self._named_layers(fp32_layers)
        judged = representative(self.batches, JUDGED_IMAGES) if len(self.batches) else []
        with clock.stage("sensitivity"):
            if sensitivity:
                report.sensitivity = layer_sensitivity(self.graph, self.table, judged, self.threads)
            if target_cosine is not None:
                spared += mixed_precision(
                    self.graph, self.table, judged, target_cosine, self.threads
                )
        with clock.stage("quantize"):
            quantized = quantize(self.graph, self.table, spared)
            if fp16_weights:
                quantized = halve_weights(quantized)
        report.method = self.table.options.get("method")
        report.images, report.options = self.table.images, self.table.options
        report.fp32_layers = spared
        report.tensors = _tensor_reports(self.table, self.seen)
        with clock.stage("compare"):
            self._compare(report, quantized, judged)
        return quantized

    def save_table(self, path: str | os.PathLike[str]) -> None:
        if Path(path).suffix == ncnn.SUFFIX:
            ncnn.save_ncnn(path, self.graph, self.table)
        else:
            self.table.save(path)

    def _named_layers(self, names: Sequence[str]) -> list[str]:
        layers = {node.name: node.outputs[0] for node in self.graph.nodes}
        layers |= {node.outputs[0]: node.outputs[0] for node in self.graph.nodes}
        for name in names:
            if name not in layers:
                raise InvalidArgumentError(f"fp32_layers: there is no layer named {name!r}")
        return [layers[name] for name in names]

    def _compare(
        self, report: ConversionReport, quantized: Graph, judged: Sequence[np.ndarray]
    ) -> None:
        report.layers = _layer_reports(
            prepare(self.graph, self.table).graph, quantized, judged, self.threads
        )
        if len(self.batches):
            true = outputs(self.graph, self.batches, self.threads)
            values = output_cosines(outputs(quantized, self.batches, self.threads), true)
            report.cosine, report.cosine_min = float(values.mean()), float(values.min())


def _tensor_reports(
    table: CalibrationTable, seen: Mapping[str, TensorStatistics]
) -> list[TensorReport]:
    reports = []
    for name, t in table.tensors.items():
        report = TensorReport(name=name, absmax=max(abs(t.minimum), abs(t.maximum)), **asdict(t))
        if name in seen:
            bins = seen[name].histogram.reshape(_REPORTED_BINS, -1)
            report.histogram = bins.sum(axis=1).tolist()
        reports.append(report)
    return reports


def _layer_reports(
    graph: Graph, quantized: Graph, judged: Sequence[np.ndarray], threads: int
) -> list[LayerReport]:
    """Compares the outputs of nodes that both graphs have."""
    ops = {node.outputs[0]: node.op for node in graph.nodes}
    weights = {n.outputs[0]: n.inputs[1] for n in quantized.nodes if n.op in MAC_OPS}
    nodes = [n for n in quantized.nodes if n.outputs[0] in ops]
    names = [n.outputs[0] for n in nodes]
    totals = {name: np.zeros(4) for name in names}  # power, error, cosine, images
    if judged:
        true, rounded = (Session(native.write(g), threads=threads) for g in (graph, quantized))
        for image in judged:
            expected, got = true.run_taps(image, names), rounded.run_taps(image, names)
            for name in names:
                tensor, y = quantized.tensors[name], got[name].astype(np.float64)
                y = (y - tensor.zero_point) * tensor.scale if tensor.dtype == "i8" else y
                x = expected[name].astype(np.float64)
                cosine = cosines(x.reshape(1, -1), y.reshape(1, -1))[0]
                totals[name] += (np.square(x).sum(), np.square(x - y).sum(), cosine, 1)
    reports = []
    for node in nodes:
        name = node.outputs[0]
        power, error, cosine, images = totals[name]
        int8 = quantized.tensors[name].dtype == "i8" or (
            name in weights and quantized.tensors[weights[name] or ""].dtype == "i8"
        )
        reports.append(
            LayerReport(
                node.name or name,
                ops[name],
                "int8" if int8 else "fp32",
                float(cosine / images) if images else None,
                float(10 * np.log10(power / error)) if power > 0 and error > 0 else None,
            )
        )
    return reports
