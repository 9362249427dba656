"""The network itself, with rows of W2 only for the classes that have been labels.

All rows of W2 begin equal. The gradient of a row is Σ_s (p_sc − [c = y_s])·h_s: rows that are
equal and no label get equal gradients and stay equal. So one row stands for the n classes not seen
yet, with ln n added to its logits; the gradient of that row is the sum over its classes, n times
that of one. Loss and W1 are those of the whole matrix. Row c is class c, and the classes not seen
come last: at each step 32 copies of their row become rows of the labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

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


def growing(
    puzzle: Puzzle, steps: int | None = None, dtype: torch.dtype = torch.float64
) -> Iterator[Step]:
    """`steps` steps, by default all. A step costs as much as the classes seen so far."""
    x = torch.from_numpy(samples()).to(dtype)
    w1 = torch.from_numpy(initial_row(INPUTS)).to(dtype).repeat(HIDDEN, 1).requires_grad_()
    steps = puzzle.steps if steps is None else steps
    w2 = torch.from_numpy(initial_row(HIDDEN)).to(dtype).repeat(steps * BATCH + 1, 1)
    for step in range(steps):
        labels = puzzle.labels(step)
        w2[labels.start : labels.stop + 1] = w2[labels.start].clone()
        unseen = puzzle.classes - labels.stop
        rows = w2[: labels.stop + (unseen > 0)].requires_grad_()
        counts = torch.ones(rows.shape[0], dtype=dtype)
        counts[labels.stop :] = unseen

        hidden = functional.relu(x @ w1.t())
        logits = hidden @ rows.t() + counts.log()
        target = torch.arange(labels.start, labels.stop)
        loss = functional.cross_entropy(logits, target, reduction=puzzle.reduction)
        loss.backward()
        with torch.no_grad():
            rows -= LEARNING_RATE * rows.grad / counts[:, None]
            w1 -= LEARNING_RATE * w1.grad
        rows.grad = w1.grad = None
        rows.requires_grad_(False)
        yield Step(float(loss.detach()), w1.detach().double().numpy().copy())
