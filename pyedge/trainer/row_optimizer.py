"""Optimizers of the class centres: their state is as sharded as the centres, row for row."""

from __future__ import annotations

import torch
from torch import Tensor

from pyedge.errors import InvalidArgumentError
from pyedge.trainer.blocks import blocks
from pyedge.trainer.head import ShardedHead


class RowOptimizer:
    """Updates the rows that the last loss took. With all of them, the same as torch.optim.

    Attributes:
        state: tensors of the shape and on the device of the centres; their rows belong to the
            same classes.
        steps: how often `step` was called.
        lr: may be set between steps.
    """

    names: tuple[str, ...] = ()

    def __init__(self, head: ShardedHead, lr: float, weight_decay: float = 0.0) -> None:
        self.head, self.lr, self.weight_decay = head, lr, weight_decay
        self.state = {name: torch.zeros_like(head.centers) for name in self.names}
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Takes the gradient of the last backward pass, whose memory goes back to the head."""
        index, leaf = self.head.rows()
        if leaf.grad is None:
            raise InvalidArgumentError("no gradient of the centres: call backward() before step()")
        self.steps += 1
        rows = leaf.detach()
        for part in blocks(rows.shape[0]):
            chosen = part if index is None else index[part]  # values of an index are copies
            state = {name: values[chosen] for name, values in self.state.items()}
            self._update(rows[part], leaf.grad[part], state)
            if index is not None:
                self.head.centers[chosen] = rows[part]
                for name, values in state.items():
                    self.state[name][chosen] = values
        self.head.give_back(leaf.grad)
        leaf.grad = None

    def _update(self, rows: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> None:
        """In place on some rows and their state; may overwrite the gradient."""
        raise NotImplementedError


class RowSGD(RowOptimizer):
    """v ← μ·v + g + λ·w; w ← w − lr·v."""

    names: tuple[str, ...] = ("momentum",)

    def __init__(
        self, head: ShardedHead, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        self.momentum = momentum
        if not momentum:
            self.names = ()
        super().__init__(head, lr, weight_decay)

    def _update(self, rows: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> None:
        if self.weight_decay:
            gradient.add_(rows, alpha=self.weight_decay)
        if self.momentum:
            gradient = state["momentum"].mul_(self.momentum).add_(gradient)
        rows.add_(gradient, alpha=-self.lr)


class RowAdamW(RowOptimizer):
    """Adam with the decay apart from the gradient (Loshchilov and Hutter, ICLR 2019, alg. 2)."""

    names: tuple[str, ...] = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        head: ShardedHead,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(head, lr, weight_decay)
        self.betas, self.eps = betas, eps

    def _update(self, rows: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> None:
        first, second = self.betas
        rows.mul_(1 - self.lr * self.weight_decay)
        mean = state["exp_avg"].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        denominator = (square / (1 - second**self.steps)).sqrt_().add_(self.eps)
        rows.addcdiv_(mean, denominator, value=-self.lr / (1 - first**self.steps))
