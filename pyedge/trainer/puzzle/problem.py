"""What the puzzle gives, and what every way of solving it yields."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pyedge.errors import InvalidArgumentError
from pyedge.trainer.puzzle.digits import e_digits, pi_digits

HIDDEN = 256
INPUTS = 128
BATCH = 32
LEARNING_RATE = 0.1
CLASSES = 2**22

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class Puzzle:
    """The run with any number of classes; every class is the label of one sample of one step.

    Attributes:
        classes: a multiple of the batch.
        reduction: of the losses of a batch; see `pyedge.trainer.puzzle`.
    """

    classes: int = CLASSES
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        if self.classes < BATCH or self.classes % BATCH:
            raise InvalidArgumentError(f"{self.classes} classes; expected a multiple of {BATCH}")
        if self.reduction not in ("sum", "mean"):
            raise InvalidArgumentError(f"reduction is {self.reduction!r}; expected sum or mean")

    @property
    def steps(self) -> int:
        """Until every class has been a label."""
        return self.classes // BATCH

    @property
    def share(self) -> float:
        """The factor of a sample's loss in that of its batch."""
        return 1.0 if self.reduction == "sum" else 1.0 / BATCH

    def labels(self, step: int) -> range:
        """Of the samples of a step."""
        return range(step * BATCH, (step + 1) * BATCH)


@dataclass(frozen=True)
class Step:
    """After one step.

    Attributes:
        loss: of the batch, before the step.
        w1: float64 [256, 128] after it, or [128] where all rows are one.
    """

    loss: float
    w1: np.ndarray


@functools.cache
def samples() -> np.ndarray:
    """X, float64 [32, 128]: digits of e over ten, row by row."""
    return np.reshape(e_digits(BATCH * INPUTS), (BATCH, INPUTS)) / 10


@functools.cache
def initial_row(columns: int) -> np.ndarray:
    """What every row of W1 and of W2 begins as, float64 [columns]: digits of π over ten."""
    return np.array(pi_digits(columns)) / 10
