"""Which samples a step trains on. It does not depend on how many ranks share them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from pyedge.errors import InvalidArgumentError


class Purpose(IntEnum):
    """What random numbers are for, so that equal seeds give unrelated ones."""

    ORDER = 1
    AUGMENTATION = 2
    SHARDS = 3
    SHUFFLE = 4


def generator(purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Random numbers that follow from the purpose and the numbers (≥ 0) alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([purpose, *numbers])))


@dataclass(frozen=True, order=True)
class Position:
    """Where a run stands: the next step to take, counted from 0 in its epoch."""

    epoch: int = 0
    step: int = 0

    def advance(self, steps_per_epoch: int) -> Position:
        """One step on."""
        if self.step + 1 < steps_per_epoch:
            return Position(self.epoch, self.step + 1)
        return Position(self.epoch + 1, 0)


@dataclass(frozen=True)
class BatchSampler:
    """The global batch of (epoch, step): a slice of the epoch's permutation of all samples.

    Rank r of W trains on the r-th of W equal parts of it, so a run goes on from a `Position` with
    the same batches at another world size. The samples that do not fill the last batch of an epoch
    are left out; the next permutation leaves out others.

    Attributes:
        samples: how many there are.
        batch: size of the global batch.
        seed: ≥ 0.
    """

    samples: int
    batch: int
    seed: int = 0
    _last: dict[int, np.ndarray] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.batch < 1 or self.samples < self.batch:
            raise InvalidArgumentError(
                f"a batch of {self.batch} from {self.samples} samples; expected 1 to {self.samples}"
            )
        if self.seed < 0:
            raise InvalidArgumentError(f"seed is {self.seed}; expected a number from 0 on")

    @property
    def steps_per_epoch(self) -> int:
        return self.samples // self.batch

    def indices(self, position: Position, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """The samples of a rank: int64 [batch / world_size].

        Raises:
            InvalidArgumentError: the ranks cannot share the batch evenly, or there is no such step.
        """
        share = rank_batch(self.batch, world_size)
        if not 0 <= position.step < self.steps_per_epoch:
            raise InvalidArgumentError(
                f"step {position.step} of an epoch of {self.steps_per_epoch} steps"
            )
        start = position.step * self.batch + rank * share
        return self._order(position.epoch)[start : start + share]

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch; the last one asked for is kept."""
        if epoch not in self._last:
            order = generator(Purpose.ORDER, self.seed, epoch).permutation(self.samples)
            self._last.clear()
            self._last[epoch] = order
        return self._last[epoch]


def rank_batch(batch: int, world_size: int) -> int:
    """How many samples of a global batch each rank takes.

    Raises:
        InvalidArgumentError: it cannot be shared evenly.
    """
    if world_size < 1 or batch % world_size:
        raise InvalidArgumentError(
            f"a global batch of {batch} cannot be shared evenly by {world_size} ranks; expected a "
            f"multiple of {max(world_size, 1)}"
        )
    return batch // world_size
