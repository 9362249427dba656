"""What the ranks exchange, and how many bytes it was."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from pyedge.errors import InvalidArgumentError, LostRankError

_PATIENCE = timedelta(seconds=30)  # for a word from a rank that says every second that it works


class Group:
    """The ranks that train together; alone, every exchange is a no-op.

    All of them must call the same exchanges in the same order, with equal shapes. Any exchange
    raises LostRankError where another rank has ended, or does not answer within the time limit
    that the process group was made with.

    Attributes:
        traffic: bytes that this rank has sent, by the name of the exchange. Payload of the usual
            ring or pairwise algorithm; what a transport adds is not counted.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """Takes a process group; by default the one of all ranks, or none where there is none."""
        there = group is not None or (dist.is_available() and dist.is_initialized())
        self._group = group
        self.rank: int = dist.get_rank(group) if there else 0
        self.world_size: int = dist.get_world_size(group) if there else 1
        self._pairwise = there and dist.get_backend(group) == "gloo"
        self.traffic: Counter[str] = Counter()
        self._patient: Group | None = None

    def patient(self) -> Group:
        """The same ranks, for what one may take much longer for than others; see `together`.

        For tensors on the CPU. All ranks must call it; always the same group.
        """
        if self.world_size == 1:
            return self
        if self._patient is None:
            ranks = dist.get_process_group_ranks(self._group or dist.group.WORLD)
            self._patient = Group(dist.new_group(ranks, _PATIENCE, "gloo"))
        return self._patient

    def all_gather(self, x: Tensor, name: str = "other") -> Tensor:
        """[b, ...] of each rank to [world_size * b, ...], in the order of the ranks."""
        if self.world_size == 1:
            return x
        self.traffic[name] += _bytes(x) * (self.world_size - 1)
        gathered = x.new_empty(self.world_size * x.shape[0], *x.shape[1:])
        with self._exchange(name):
            dist.all_gather_single(gathered, x.contiguous(), group=self._group)
        return gathered

    def reduce_scatter(self, x: Tensor, name: str = "other") -> Tensor:
        """[world_size * b, ...] summed over the ranks; each keeps its own [b, ...]."""
        if self.world_size == 1:
            return x
        self._check_divides(x)
        self.traffic[name] += _bytes(x) * (self.world_size - 1) // self.world_size
        share = (x.shape[0] // self.world_size, *x.shape[1:])
        if self._pairwise:
            # gloo's own reduce_scatter sends as much as an all_reduce, which is twice this.
            received = torch.empty_like(x)
            with self._exchange(name):
                dist.all_to_all_single(received, x.contiguous(), group=self._group)
            return received.view(self.world_size, *share).sum(0)
        own = x.new_empty(share)
        with self._exchange(name):
            dist.reduce_scatter_single(own, x.contiguous(), group=self._group)
        return own

    def all_sum(self, x: Tensor, name: str = "other") -> Tensor:
        """Sums over the ranks, in place."""
        return self._all_reduce(x, name, dist.ReduceOp.SUM)

    def all_max(self, x: Tensor, name: str = "other") -> Tensor:
        """The maximum over the ranks, in place."""
        return self._all_reduce(x, name, dist.ReduceOp.MAX)

    def broadcast(self, x: Tensor, name: str = "other", source: int = 0) -> Tensor:
        """What rank `source` has, to all, in place."""
        if self.world_size > 1:
            self.traffic[name] += _bytes(x) * (self.world_size - 1) // self.world_size
            with self._exchange(name):
                dist.broadcast(x, group_src=source, group=self._group)
        return x

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.world_size > 1:
            with self._exchange("barrier"):
                dist.barrier(group=self._group)

    def _all_reduce(self, x: Tensor, name: str, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.world_size > 1:
            self.traffic[name] += 2 * _bytes(x) * (self.world_size - 1) // self.world_size
            with self._exchange(name):
                dist.all_reduce(x, operation, group=self._group)
        return x

    @contextmanager
    def _exchange(self, name: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch has no narrower one for gloo
            raise LostRankError(
                f"rank {self.rank} of {self.world_size}: another rank has ended or does not "
                f"answer ({name}: {reason(error)})"
            ) from error

    def _check_divides(self, x: Tensor) -> None:
        if x.shape[0] % self.world_size:
            raise InvalidArgumentError(
                f"{x.shape[0]} rows cannot be shared out over {self.world_size} ranks evenly"
            )


def reason(error: Exception) -> str:
    """What torch.distributed says, without its source's place, advice and trace."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^]]*:\d+\] ", "", first).split(". ")[0]


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
