"""The network in full, with the trainer's own head: W2 split over the ranks, the batch as well."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from pyedge.errors import InvalidArgumentError
from pyedge.trainer.distributed import Group
from pyedge.trainer.head import ShardedHead
from pyedge.trainer.margins import Softmax
from pyedge.trainer.puzzle.problem import (
    BATCH,
    HIDDEN,
    INPUTS,
    LEARNING_RATE,
    Puzzle,
    Step,
    initial_row,
    samples,
)
from pyedge.trainer.row_optimizer import RowSGD


def sharded(puzzle: Puzzle, group: Group, dtype: torch.dtype = torch.float64) -> Iterator[Step]:
    """All steps, on a rank of `group`; the same on each.

    Whatever is small is in float64: W1, as its rounding to float32 alone would be some 1e-6, and
    the logits of a block of classes: they are up to 3000, which float32 rounds to 1e-4.

    Args:
        dtype: of W2 and its gradient.
    """
    share = share_of_batch(group.world_size)
    own = slice(group.rank * share, (group.rank + 1) * share)
    x = torch.from_numpy(samples())[own]
    w1 = nn.Parameter(torch.from_numpy(initial_row(INPUTS)).repeat(HIDDEN, 1))
    head = ShardedHead(
        puzzle.classes,
        HIDDEN,
        Softmax(),
        group,
        dtype=dtype,
        reduction=puzzle.reduction,
        keep_logits=False,
        logits_dtype=torch.float64,
    )
    with torch.no_grad():
        head.centers.copy_(torch.from_numpy(initial_row(HIDDEN)).expand_as(head.centers))
    w1_optimizer = torch.optim.SGD([w1], LEARNING_RATE)
    w2_optimizer = RowSGD(head, LEARNING_RATE, momentum=0.0)
    for step in range(puzzle.steps):
        loss = head(functional.relu(x @ w1.t()), torch.tensor(puzzle.labels(step)[own]))
        loss.backward()
        group.all_sum(w1.grad, "backbone gradient")
        w1_optimizer.step()
        w1_optimizer.zero_grad()
        w2_optimizer.step()
        yield Step(float(loss.detach()), w1.detach().double().numpy().copy())


def share_of_batch(ranks: int) -> int:
    """How many samples of a step a rank takes, of so many ranks."""
    if ranks < 1 or BATCH % ranks:
        raise InvalidArgumentError(
            f"{ranks} ranks; expected a number that divides the batch of {BATCH}"
        )
    return BATCH // ranks
