"""What the three ways must agree to, measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from pyedge.trainer.puzzle.collapsed import collapsed
from pyedge.trainer.puzzle.compare import compare
from pyedge.trainer.puzzle.growing import growing
from pyedge.trainer.puzzle.local_ranks import compare_on_ranks
from pyedge.trainer.puzzle.problem import Puzzle, Reduction, initial_row, samples

_RANKS = 2
_STEPS: dict[Reduction, dict[int, int]] = {  # of each class count; the summed run ends after 2
    "sum": {2**10: 4, 2**16: 4},
    "mean": {2**10: 32, 2**16: 64},
}


@dataclass(frozen=True)
class Result:
    """One thing measured.

    Attributes:
        limit: the highest `measured` that will do; None where there is no bar.
    """

    what: str
    measured: float
    unit: str
    limit: float | None = None

    @property
    def cleared(self) -> bool:
        return self.limit is None or self.measured <= self.limit


def measure() -> list[Result]:
    """All of it; some minutes."""
    results = [
        Result("collapsed, sum, 2²² classes to the end", _milliseconds("sum", 5), "ms", 10.0),
        Result("collapsed, mean, 2²² classes to the end", _milliseconds("mean", 1), "ms"),
        Result("|Δw| of merged classes, mean, 2¹⁶ to the end", _merging_error(), "", 1e-12),
    ]
    for reduction, steps_of in _STEPS.items():
        for classes, steps in steps_of.items():
            results += _distances(Puzzle(classes, reduction), steps)
    return results


def _distances(puzzle: Puzzle, steps: int) -> list[Result]:
    what = f"{puzzle.reduction}, {puzzle.classes:,} classes, {steps} steps"
    runs = {"growing, float64": compare(growing(puzzle, steps), puzzle, steps)}
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        runs[f"{_RANKS} ranks, {name}"] = compare_on_ranks(puzzle, _RANKS, steps, dtype)
    results = []
    for how, run in runs.items():
        chaotic = puzzle.reduction == "mean" and how.endswith("float32")  # see the package
        limit = None if chaotic else 1e-6
        results.append(Result(f"|ΔW1| {how}, {what}", max(run.w1_distances), "", limit))
    return results


def _milliseconds(reduction: Reduction, repeats: int) -> float:
    """Of the best run from nothing, the digits of π and e included."""
    times = []
    for _ in range(repeats):
        samples.cache_clear()
        initial_row.cache_clear()
        start = time.perf_counter()
        for _step in collapsed(Puzzle(reduction=reduction)):
            pass
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def _merging_error() -> float:
    puzzle = Puzzle(2**16, "mean")
    *_, merged = collapsed(puzzle)
    *_, whole = collapsed(puzzle, keep_all=True)
    return float(np.abs(merged.w1 - whole.w1).max())
