"""A run held against the collapsed one, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pyedge.trainer.puzzle.collapsed import collapsed
from pyedge.trainer.puzzle.problem import Puzzle, Step


@dataclass(frozen=True)
class Comparison:
    """How a run went, and how far it was from the collapsed run.

    Attributes:
        steps: compared.
        seconds: of the run.
        losses: of each step.
        w1_distances: max |ΔW1| over all rows after each step.
        loss_distances: |Δloss| of each step, relative.
        w1: the first row of W1 in the end.
    """

    steps: int
    seconds: float
    losses: list[float]
    w1_distances: list[float]
    loss_distances: list[float]
    w1: list[float]


def compare(
    run: Iterable[Step],
    puzzle: Puzzle,
    steps: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """The first `steps` steps of `run`, which is anyone's way of solving `puzzle`.

    Args:
        progress: called after each step with what is going on, steps done, steps in all.
    """
    reference = collapsed(puzzle)
    theirs = Step(0.0, np.zeros(0))
    losses, w1_distances, loss_distances = [], [], []
    start, elsewhere = time.perf_counter(), 0.0
    w1 = np.zeros(0)
    for step in islice(run, steps):
        before = time.perf_counter()
        theirs = next(reference, theirs)  # the last step stands for all after it
        losses.append(step.loss)
        w1_distances.append(float(np.abs(step.w1 - theirs.w1).max()))
        loss_distances.append(abs(step.loss - theirs.loss) / abs(theirs.loss))
        w1 = np.atleast_2d(step.w1)[0]
        if progress:
            progress("steps", len(losses), min(steps, puzzle.steps))
        elsewhere += time.perf_counter() - before
    seconds = time.perf_counter() - start - elsewhere
    return Comparison(len(losses), seconds, losses, w1_distances, loss_distances, w1.tolist())
