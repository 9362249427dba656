"""Batch normalization over the images of all ranks, put into a model from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pyedge.trainer.distributed import Group


def synchronize_batch_norm(model: nn.Module, group: Group) -> nn.Module:
    """Every BatchNorm of `model` takes its statistics over all ranks from now on, in place.

    Parameters, buffers and their names stay, so checkpoints and exports are those of the plain
    model. Ranks must have batches of the same size. With one rank nothing is changed.
    """
    if group.world_size > 1:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.forward = _Forward(module, group)
    return model


class _Forward:
    def __init__(self, module: nn.BatchNorm1d | nn.BatchNorm2d, group: Group) -> None:
        self.module, self.group = module, group
        self.plain = module.forward

    def __call__(self, x: Tensor) -> Tensor:
        module = self.module
        if not module.training:
            evaluated: Tensor = self.plain(x)
            return evaluated
        y, mean, variance = _BatchNorm.apply(x, module.weight, module.bias, module.eps, self.group)
        if module.running_mean is not None:
            module.num_batches_tracked += 1
            momentum = module.momentum
            if momentum is None:
                momentum = 1.0 / float(module.num_batches_tracked)
            count = x.numel() // x.shape[1] * self.group.world_size
            unbiased = variance * (count / max(1, count - 1))
            module.running_mean.lerp_(mean.to(module.running_mean.dtype), momentum)
            module.running_var.lerp_(unbiased.to(module.running_var.dtype), momentum)
        normalized: Tensor = y
        return normalized


class _BatchNorm(torch.autograd.Function):
    """Torch's own kernels on this rank's images, around what the ranks exchange of each channel:
    mean and variance forward, and the two sums that the gradient needs backward.

    With x̂ = (x − μ)/σ, weight w and N values a channel over all ranks,
    ∂x = w/σ·(∂y − Σ∂y/N − x̂·Σ(∂y·x̂)/N) (Ioffe and Szegedy, ICML 2015, section 3).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Group
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Statistics have the type of the weights: float32 where x is bfloat16.
        kind = torch.promote_types(x.dtype, torch.float32)
        ones, zeros = (torch.full(x.shape[1:2], v, dtype=kind, device=x.device) for v in (1, 0))
        _, own_mean, own_inverse = torch.native_batch_norm(x, ones, zeros, None, None, True, 0, eps)
        own = torch.stack([own_mean, own_inverse.pow(-2) - eps])
        ranks = group.all_gather(own, "batch norm").view(group.world_size, *own.shape)
        means, variances = ranks.unbind(1)
        mean = means.mean(0)
        # Of equal parts: the mean of the variances, and the variance of the means.
        variance = (variances + (means - mean).square()).mean(0)
        y, _, _ = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0, eps)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        count = x.numel() // x.shape[1] * ctx.group.world_size
        inverse = torch.rsqrt(variance + ctx.eps)
        factor = inverse if weight is None else inverse * weight
        _, along, total = torch.ops.aten.native_batch_norm_backward(
            dy,
            x,
            torch.ones_like(mean),
            mean,
            variance,
            None,
            None,
            False,
            ctx.eps,
            [False, True, True],
        )
        sums = ctx.group.all_sum(torch.stack([along, total]), "batch norm gradient") / count
        # ∂x = factor·∂y + slope·x + constant, for each channel.
        slope = -factor * inverse * sums[0]
        constant = -factor * sums[1] - slope * mean
        shape = [1, -1] + [1] * (x.ndim - 2)
        factor, slope, constant = (v.view(shape).to(x.dtype) for v in (factor, slope, constant))
        dx = torch.addcmul(torch.addcmul(constant, slope, x), factor, dy)
        dweight = along if weight is not None else None
        return dx, dweight, total if weight is not None else None, None, None
