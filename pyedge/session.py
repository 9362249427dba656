"""Running a model."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pyedge import _core
from pyedge.errors import InvalidArgumentError
from pyedge.metadata import Metadata

# The side of images that a network of any input size is described for.
_FREE_SIDE = 320
MAX_THREADS = 256  # as in csrc/runtime/session.cc


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model; -1 in `shape` stands for any size."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


class Session:
    """A model ready to run.

    Sessions are independent of each other; calls on one session are serialized, so it may be
    shared between Python threads without gain. The first run of an input shape makes a plan for
    it, later ones reuse it. All sessions of a process together keep no more threads at work than
    it has CPUs, see `set_thread_budget`.

    Args:
        path: a native model file, its bytes, or another session whose model and packed weights
            to share.
        threads: how many threads `run` uses, the caller's included, up to 256. They sleep when
            idle.
        isa: the instruction set to use at best, by name (see `pyedge.features`); by default the
            environment variable PYEDGE_ISA, else the best that this CPU has.
        affinity: the CPUs to run on, of those that the process may use: "all", or only the "big" or
            the "little" ones of a processor that has two kinds. The thread that calls `run` moves
            there until `run` returns.
        cache: a file `*.pyepack` for the packed weights, or a folder in which each model gets one.
            Packed weights are written there once and mapped on the next start. A file that is
            damaged, of another model or of another version is written anew. Nothing else may
            change it while it is in use.

    Raises:
        InvalidModelError: the file is not a model, or was altered.
        FileNotFoundError, OSError: the file cannot be read.
        InvalidArgumentError, UnsupportedError: no such instruction set, or not on this CPU.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes | Session,
        threads: int = 1,
        isa: str | None = None,
        *,
        affinity: str = "all",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self._model: _core.Model
        if isinstance(path, Session):
            if cache is not None:
                raise InvalidArgumentError("cache: give it where the model itself is loaded")
            self._model = path._model
        elif isinstance(path, bytes):
            self._model = _core.Model.load_bytes(path)
        else:
            name = os.fspath(path)
            with open(name, "rb"):  # noqa: PTH123 - for Python's own error, names and all
                pass
            self._model = _core.Model.load_file(name)
        check_threads(threads)
        self._affinity = affinity
        self._core = _core.Session(self._model, threads, isa or "", affinity, False)
        if cache is not None:
            self._model.use_cache(str(_cache_file(Path(cache), self.sha256)))
        self._taps: _core.Session | None = None

    @property
    def inputs(self) -> list[TensorInfo]:
        return [TensorInfo(name, shape) for name, shape in self._model.inputs]

    @property
    def outputs(self) -> list[TensorInfo]:
        one = self._model.infer_outputs(self._sized_inputs(batch=1, side=_FREE_SIDE))
        other = self._model.infer_outputs(self._sized_inputs(batch=2, side=2 * _FREE_SIDE))
        return [
            TensorInfo(name, tuple(a if a == b else -1 for a, b in zip(shape, grown, strict=True)))
            for (name, shape), (_, grown) in zip(one, other, strict=True)
        ]

    @property
    def metadata(self) -> Metadata:
        """Preprocessing and what else the file says of the network."""
        return Metadata(**self._model.metadata)

    @property
    def isa(self) -> str:
        """The instruction set in use at best."""
        return self._core.isa

    @property
    def threads(self) -> int:
        return self._core.threads

    @property
    def cpus(self) -> list[int]:
        """The CPUs that the session keeps to; empty where it may use any."""
        return self._core.cpus

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file, as the file states it: hexadecimal."""
        return self._model.sha256

    def run(self, x: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs the network.

        Args:
            x: float32 in the layout of the ONNX model (NCHW for images), any batch; one array
                for each input where there are several.

        Returns:
            One float32 array for each output, as ONNX Runtime would return.

        Raises:
            InvalidArgumentError: another shape or dtype than the model takes, or a value that is
                not finite.
        """
        return self._core.run(_arrays(x))

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings of aligned face crops. They are personal data.

        Args:
            crops: uint8 RGB [N, H, W, 3] of the model's input size. Colour order, mean and scale
                are taken from the file.

        Returns:
            float32 [N, D], each of L2 norm 1 (a zero embedding stays zero).

        Raises:
            InvalidArgumentError: another shape or dtype, a model without preprocessing, or one
                that gives no embedding.
        """
        size = self._embedding_size
        if len(crops) == 0:
            return np.zeros((0, size), np.float32)
        features = self.run(self.metadata.apply(crops))[0].reshape(-1, size)
        # cumsum adds from the first to the last: other sums depend on the CPU in their last bits.
        norms = np.sqrt(np.cumsum(np.square(features, dtype=np.float64), axis=1)[:, -1])
        return (features / np.maximum(norms, 1e-12)[:, None]).astype(np.float32)

    @cached_property
    def _embedding_size(self) -> int:
        outputs = self.outputs
        shape = outputs[0].shape
        if len(outputs) > 1 or len(shape) < 2 or any(dim != 1 for dim in shape[2:]):
            shapes = ", ".join(f"{info.name} {list(info.shape)}" for info in outputs)
            raise InvalidArgumentError(f"this model gives no embedding: its outputs are {shapes}")
        return shape[1]

    def run_taps(
        self, x: np.ndarray | Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Runs the network and returns its activations by tensor name.

        Rank-4 activations are NHWC, i8 ones come as int8. `names` picks some of them.
        """
        if self._taps is None:
            self._taps = _core.Session(self._model, self.threads, self.isa, self._affinity, True)
        if names is not None and not names:
            return {}
        return self._taps.run_taps(_arrays(x), list(names or []))

    def profile(self, x: np.ndarray | Sequence[np.ndarray], repeats: int = 10) -> np.ndarray:
        """Seconds of each layer in each run: float64 [repeats, layers], layers as in `describe`."""
        return self._core.profile(_arrays(x), repeats)

    def prepare(self, shapes: Sequence[Sequence[int]] | None = None) -> None:
        """Makes the plan for these input shapes now, so that the first run takes no longer than
        others; shapes as for `describe`.
        """
        self._core.prepare([list(shape) for shape in shapes or self._sized_inputs()])

    def describe(self, shapes: Sequence[Sequence[int]] | None = None) -> dict[str, Any]:
        """Layers (name, op, kernel, input and output tensors, macs, weight bytes) and totals.

        Bytes in memory: `arena_bytes` and `scratch_bytes` are this session's, `packed_bytes` (of
        which `mapped_bytes` come from the cache) and `model_bytes`, what is left of the file once
        its weights are packed, are shared by the sessions of the model. `cache_problem` says why
        the cache could not be written.

        Args:
            shapes: one for each input; by default a batch of 1 at the model's own size, or 320
                where it takes any.
        """
        layers = self._core.layers([list(shape) for shape in shapes or self._sized_inputs()])
        return {
            "inputs": [vars(info) for info in self.inputs],
            "outputs": [vars(info) for info in self.outputs],
            "isa": self.isa,
            "sha256": self.sha256,
            "file_bytes": self._model.file_bytes,
            **self._core.memory(),
            "macs": sum(layer["macs"] for layer in layers),
            "layers": layers,
        }

    def _sized_inputs(self, batch: int = 1, side: int | None = None) -> list[list[int]]:
        """Input shapes with every open axis decided: the first as `batch`, others as `side`.

        Without `side` they are the input size that the file names, if it names one.
        """
        width, height = self.metadata.input_size if side is None else (side, side)
        sizes = [batch, 3, height or _FREE_SIDE, width or _FREE_SIDE]
        return [
            [sizes[min(axis, 3)] if dim == -1 else dim for axis, dim in enumerate(info.shape)]
            for info in self.inputs
        ]


def check_threads(threads: object) -> None:
    """Raises InvalidArgumentError for anything but a number of threads that a session takes."""
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise InvalidArgumentError(
            f"threads is {threads!r}; expected a whole number from 1 to {MAX_THREADS}"
        )


def _arrays(x: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    if not isinstance(x, np.ndarray | list | tuple):
        raise InvalidArgumentError(
            f"input: must be a float32 NumPy array, or a list of them, got {type(x).__name__}"
        )
    arrays = [x] if isinstance(x, np.ndarray) else list(x)
    for array in arrays:
        if not isinstance(array, np.ndarray):
            raise InvalidArgumentError(
                f"input: must be a float32 NumPy array, got {type(array).__name__}"
            )
    return arrays


def _cache_file(cache: Path, sha256: str) -> Path:
    path = cache / f"{sha256[:32]}.pyepack" if cache.is_dir() else cache
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    return path


def set_thread_budget(threads: int) -> None:
    """Sets how many threads the sessions of this process may keep at work together.

    By default as many as the process has CPUs. Whoever calls a session always works; threads of
    its own join in as long as there is room.

    Raises:
        InvalidArgumentError: not a number from 1 to 256.
    """
    check_threads(threads)
    _core.set_thread_budget(threads)


def features() -> dict[str, Any]:
    """The CPU's model and features, the kernel sets compiled in, and which of them it can run."""
    return _core.features()
