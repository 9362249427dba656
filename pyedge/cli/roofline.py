"""The least time that a layer could take on this CPU.

Its multiply-adds at the CPU's peak, or its bytes at the rate of the memory that they come from,
whichever takes longer (Williams et al., Roofline, 2009). Rates are measured: registers only for
the peak; for bytes, reading a working set of their size again and again. The weights' working
set is the whole model, since every run passes through it; that of activations is what the layer
reads and writes.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

_SMALLEST_SET = 1 << 14
_LARGEST_SET = 1 << 28
_DTYPE_BYTES = {"f32": 4, "i8": 1}


@dataclass(frozen=True)
class Floor:
    """The least seconds of a layer, and what it waits for: "compute" or "memory"."""

    seconds: float
    bound: str
    bytes: int


@dataclass(frozen=True)
class Roofline:
    """Rates of this CPU with the threads that it was measured for.

    Attributes:
        peak_gops: by type of the multiplied values; a multiply-add counts as two operations.
        bandwidth_gbs: gigabytes a second by the bytes of the working set, ascending.
        model_bytes: packed weights and activations together.
    """

    peak_gops: dict[str, float]
    bandwidth_gbs: dict[int, float]
    model_bytes: int

    @classmethod
    def measure(cls, isa: str, threads: int, model_bytes: int) -> Roofline:
        """Takes about a second."""
        from pyedge import _core

        one_thread = _core.measure_peak(isa)
        peak = {"f32": one_thread["f32_gflops"] * threads, "i8": one_thread["i8_gops"] * threads}
        bandwidth: dict[int, float] = {}
        with ThreadPoolExecutor(threads) as pool:
            size = _SMALLEST_SET
            while True:
                # All threads at once: they share the outer caches and the memory.
                shares = [size // threads] * threads
                rates = pool.map(lambda share: _core.measure_bandwidth(isa, share), shares)
                rate = sum(rates)
                # A larger set is never read faster; where it seems so, the smaller was disturbed.
                bandwidth = {set_: max(known, rate) for set_, known in bandwidth.items()}
                bandwidth[size] = rate
                if size >= min(model_bytes, _LARGEST_SET):
                    return cls(peak, bandwidth, model_bytes)
                size *= 2

    def floor(self, layer: dict[str, Any]) -> Floor:
        """Of a layer as `Session.describe` tells it."""
        moved = sum(
            math.prod(tensor["shape"]) * _DTYPE_BYTES[tensor["dtype"]]
            for tensor in (*layer["inputs"], *layer["outputs"])
        )
        if layer["kernel"] is None:
            return Floor(0.0, "memory", 0)
        weights = layer["weight_bytes"]
        memory = self._read_seconds(weights, self.model_bytes) + self._read_seconds(moved, moved)
        compute = 2e-9 * layer["macs"] / self.peak_gops[layer["inputs"][0]["dtype"]]
        bound = "compute" if compute >= memory else "memory"
        return Floor(max(compute, memory), bound, weights + moved)

    def _read_seconds(self, count: int, working_set: int) -> float:
        size = next((s for s in self.bandwidth_gbs if s >= working_set), max(self.bandwidth_gbs))
        return 1e-9 * count / self.bandwidth_gbs[size]
