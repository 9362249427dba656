"""Which rank owns which classes: one contiguous range for each, of any sizes."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from itertools import accumulate

from pyedge.errors import InvalidArgumentError


@dataclass(frozen=True)
class Partition:
    """Rank r owns the classes from the sum of the sizes before it on.

    Attributes:
        sizes: classes of each rank; a rank may own none.
    """

    sizes: tuple[int, ...]
    _stops: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 0 or not any(self.sizes):
            raise InvalidArgumentError(
                f"sizes of the shards are {list(self.sizes)}; expected one from 0 on for each "
                "rank, not all 0"
            )
        object.__setattr__(self, "_stops", tuple(accumulate(self.sizes)))

    @classmethod
    def even(cls, classes: int, ranks: int) -> Partition:
        """As even as it goes: the first ranks own one class more."""
        if classes < 1 or ranks < 1:
            raise InvalidArgumentError(
                f"{classes} classes over {ranks} ranks; expected at least one of each"
            )
        share, more = divmod(classes, ranks)
        return cls(tuple(share + (rank < more) for rank in range(ranks)))

    @property
    def ranks(self) -> int:
        return len(self.sizes)

    @property
    def classes(self) -> int:
        return self._stops[-1]

    def range(self, rank: int) -> range:
        """The classes of a rank."""
        return range(self._stops[rank] - self.sizes[rank], self._stops[rank])

    def owner(self, label: int) -> int:
        """The rank that owns a class."""
        if not 0 <= label < self.classes:
            raise InvalidArgumentError(f"label {label}: expected 0 to {self.classes - 1}")
        return bisect.bisect_right(self._stops, label)
