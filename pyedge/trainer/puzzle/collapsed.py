"""The run as a recursion in w ∈ R¹²⁸ and one number for each group of classes that are equal.

All rows of W1 begin as one vector w, so all hidden units have one value a_s = max(0, x_s·w) for
sample s. Every row of W2 begins as π; let row c be π + u_c·1 with u_c = 0. Then

    logits        z_sc = a_s·Σ_j (π_j + u_c) = a_s·Σ_j π_j + 256·a_s·u_c,

whose first term is the same for all classes and cancels in p_s = softmax(z_s). With η the learning
rate, r the factor of a sample's loss (1 summed, 1/32 averaged) and y the label:

    ∂L/∂z_sc    = r·(p_sc − [c = y_s])
    ∂L/∂W2_cj   = r·Σ_s (p_sc − [c = y_s])·a_s                   the same for all j: u_c stays one
    ∂L/∂h_sj    = r·Σ_c (p_sc − [c = y_s])·(π_j + u_c)           number; Σ_c (p_sc − [c = y_s]) = 0,
                = r·(Σ_c p_sc·u_c − u_y) =: r·g_s                so the same for all j: w stays one

    u_c ← u_c − η·r·Σ_s a_s·(p_sc − [c = y_s]),     w ← w − η·r·Σ_{s: a_s > 0} g_s·x_s.

Classes with one u keep one u until one of them is a label, and only a label of a sample with
a_s > 0 leaves its group. So the state is w, the u of all classes that have not left (with their
count), and one u for each that has. Every u not yet seen only ever falls, and Σ_c u_c = 0 stays:
so g_s ≥ 0, w falls where x > 0, every a_s falls, and once all are 0 nothing changes any more.

Summed: at step 0 all u are equal and g = 0; the labels go up by η·a_s ≈ 3. At step 1 the logits
are up to 25,000 apart, p is 1 for the class of the largest a, so g_s = η·max a for every s and
w = π − η²·max_s(x_s·π)·Σ_s x_s < 0: every unit is dead, whatever the class count.

Averaged: labels go up by η·a_s/32 ≈ 0.1 and w falls a little at every step. The probabilities
soften as a falls; the last unit dies at step 59,352 of 131,072.

By then 100,000 classes have left the group, and each step asks for Σ_c exp(256·a_s·u_c) over all.
But all of them follow the same map u ↦ u − η·r·Σ_s a_s·exp(256·a_s·u)/Z_s, which is smooth: what
is asked of a class in all future is a smooth function of its u now. So once the map is close to the
identity (its slope within 5 % of 1: from about step 200 on), classes whose logits differ by less
than 8 are replaced by Chebyshev nodes with the weights that integrate every polynomial of their
degree alike (Lagrange interpolation). The error of 24 nodes is below float64's rounding: the same
w as with all classes kept, to 1e-15, with 150 numbers instead of up to 100,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

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

_NODES = 24
_CELL = 8.0  # classes whose logits differ by less share nodes
_SLOPE = 0.05  # the map of a step may differ this much from the identity where classes are merged
_EVERY = 32  # steps between mergers


def collapsed(puzzle: Puzzle, keep_all: bool = False) -> Iterator[Step]:
    """The steps up to the one in which every unit is dead, after which nothing changes.

    Args:
        keep_all: never merge classes that are not exactly equal.
    """
    x, w = samples(), initial_row(INPUTS)
    rate = LEARNING_RATE * puzzle.share
    u, count = np.zeros(1), np.array([float(puzzle.classes)])  # first the group not yet left
    for step in range(puzzle.steps):
        a = x @ w
        alive = a > 0
        a = a[alive]
        loss = (BATCH - a.size) * math.log(puzzle.classes)
        if not a.size:
            yield Step(loss * puzzle.share, w)
            return
        first = u[0]
        count[0] -= a.size
        u = np.concatenate([u, np.full(a.size, first)])
        count = np.concatenate([count, np.ones(a.size)])

        top = u.max()
        e = np.multiply.outer(HIDDEN * a, u - top)
        np.exp(e, out=e)
        sums = e @ count
        loss += float(np.sum(np.log(sums) + HIDDEN * a * (top - first)))
        g = e @ (count * (u - first)) / sums
        u -= rate * ((a / sums) @ e)
        u[-a.size :] += rate * a
        w = w - rate * (g @ x[alive])
        yield Step(loss * puzzle.share, w)

        if not keep_all and step % _EVERY == _EVERY - 1:
            slope = rate * HIDDEN * float(np.max((a * a / sums) @ e))
            if slope < _SLOPE:
                cell = _CELL / (HIDDEN * a.max())
                left, count_left = _merged(u[1:], count[1:], cell)
                u, count = np.append(u[0], left), np.append(count[0], count_left)


def _merged(u: np.ndarray, count: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """The classes of each cell of u with more of them than nodes, as Chebyshev nodes.

    Both ends of what a cell holds are nodes, so that merging again changes little.
    """
    order = np.argsort(u)
    u, count = u[order], count[order]
    cuts = np.flatnonzero(np.diff(np.floor((u[-1] - u) / cell))) + 1
    groups = list(zip(np.split(u, cuts), np.split(count, cuts), strict=True))
    for i, (points, counts) in enumerate(groups):
        if points.size > _NODES:
            low, high = points[0], points[-1]
            nodes = (low + high) / 2 - (high - low) / 2 * np.cos(
                np.arange(_NODES) * np.pi / (_NODES - 1)
            )
            nodes[0], nodes[-1] = low, high
            groups[i] = nodes, counts @ _lagrange(points, nodes)
    return np.concatenate([g[0] for g in groups]), np.concatenate([g[1] for g in groups])


def _lagrange(points: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """ℓ_j(x_i) as [points, nodes] of Chebyshev nodes of the second kind, barycentric.

    Berrut and Trefethen, SIAM Review 46(3), 2004, eq. 4.2 and 5.4.
    """
    weights = (-1.0) ** np.arange(nodes.size)
    weights[[0, -1]] /= 2
    distance = points[:, None] - nodes
    hit = distance == 0
    values = weights / np.where(hit, 1.0, distance)
    on_node = hit.any(1)
    values[on_node] = hit[on_node]
    return values / values.sum(1, keepdims=True)
