"""Which samples of a sharded set a step trains on, read from beginning to end of each shard.

An epoch's order of the shards is a permutation by (seed, epoch). The samples in that order are cut
into `lanes` equal parts, the lanes, wherever in a shard a cut falls. Each lane is read through a
shuffle buffer of its own, seeded by (seed, epoch, lane), and gives the same number of samples to
every global batch. Ranks and workers share out whole lanes.

So the global batch of (epoch, step) does not depend on ranks or workers, and a run goes on at any
world size that divides `lanes`, with the same batches. Going on in the middle of an epoch repeats
the shuffle on numbers alone, to learn the oldest sample that is still to come, and reads from
there: exact, at the cost of the shards that the buffer reaches back to. What does not fill a
lane's last batch is left out of an epoch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

from pyedge.errors import InvalidArgumentError
from pyedge.trainer.data.sampler import Purpose, generator, rank_batch
from pyedge.trainer.data.shards import Sample, Shards, webdataset


@dataclass(frozen=True)
class LaneSampler:
    """Deals the samples of shards out to global batches.

    Attributes:
        batch: size of the global batch, a multiple of `lanes`.
        lanes: how many; a multiple of every world size that the run may have.
        buffer: samples that a lane shuffles among; held in memory encoded, for each lane.
        seed: ≥ 0.
    """

    shards: Shards
    batch: int
    lanes: int = 8
    buffer: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.batch < 1 or self.batch % self.lanes:
            raise InvalidArgumentError(
                f"a global batch of {self.batch} from {self.lanes} lanes; expected a multiple of "
                f"{max(self.lanes, 1)}"
            )
        if self.buffer < 1 or self.seed < 0:
            raise InvalidArgumentError(
                f"buffer is {self.buffer} and seed {self.seed}; expected at least 1 and 0"
            )
        if not self.steps_per_epoch:
            raise InvalidArgumentError(
                f"a batch of {self.batch} in {self.lanes} lanes from {self.shards.total} "
                f"samples in {self.shards.folder}: not enough for one step"
            )

    @property
    def lane_batch(self) -> int:
        """What a lane gives to each global batch."""
        return self.batch // self.lanes

    @property
    def lane_samples(self) -> int:
        """What a lane reads in an epoch."""
        return self.shards.total // self.lanes

    @property
    def steps_per_epoch(self) -> int:
        return self.lane_samples // self.lane_batch

    def lanes_of(self, rank: int, world_size: int) -> range:
        """The lanes that make up a rank's part of the global batch.

        Raises:
            InvalidArgumentError: the ranks cannot share the lanes evenly.
        """
        rank_batch(self.batch, world_size)
        if self.lanes % world_size:
            raise InvalidArgumentError(
                f"{self.lanes} lanes cannot be shared evenly by {world_size} ranks; expected a "
                f"multiple of {world_size}"
            )
        share = self.lanes // world_size
        return range(rank * share, (rank + 1) * share)

    def batches(self, lane: int, epoch: int, start: int = 0) -> Iterator[list[Sample]]:
        """What a lane gives to the global batches of an epoch, from step `start` on.

        Raises:
            TrainingError: a missing or damaged shard.
        """
        size = self.lane_batch
        first = self._oldest_left(lane, epoch, start * size)
        samples = chain(repeat(None, first), self._read(lane, epoch, first))
        shuffled = self._shuffled(samples, lane, epoch)
        rest = islice(shuffled, start * size, self.steps_per_epoch * size)
        while batch := list(islice(rest, size)):
            yield batch

    def _oldest_left(self, lane: int, epoch: int, taken: int) -> int:
        """The first sample of a lane, by its place in it, that the first `taken` are without."""
        seen = bytearray(self.lane_samples + 1)
        places = self._shuffled(iter(range(self.lane_samples)), lane, epoch)
        for place in islice(places, taken):
            seen[place] = 1
        return seen.index(0)

    def _shuffled(self, items: Iterator[Any], lane: int, epoch: int) -> Iterator[Any]:
        """In an order that does not depend on what the items are."""
        seed = int(generator(Purpose.SHUFFLE, self.seed, epoch, lane).integers(2**63))
        rng = random.Random(seed)
        shuffled: Iterator[Any] = webdataset().shuffle(self.buffer, self.buffer, rng=rng)(items)
        return shuffled

    def _read(self, lane: int, epoch: int, first: int) -> Iterator[Sample]:
        """The samples of a lane from a place in it on, shard after shard."""
        begin, end = lane * self.lane_samples + first, (lane + 1) * self.lane_samples
        position = 0  # of the shard's first sample in the order of the epoch
        order = generator(Purpose.SHARDS, self.seed, epoch).permutation(len(self.shards.files))
        for shard in order:
            count = self.shards.samples[shard]
            start, stop = max(begin - position, 0), min(end - position, count)
            if start < stop:
                yield from self.shards.read(int(shard), start, stop)
            position += count
