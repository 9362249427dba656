"""Classification losses that differ in how they score the class of the label.

All are a softmax cross-entropy over logits z_ij = s·x̃_i·w̃_j, where x̃ and w̃ are the feature and the
class centre, normalized to length 1 or not. Only the logit of the label is another function of the
angle θ between x_i and its centre: that function is what a `Margin` is. So the head needs no more
than one matrix product, and any of them runs sharded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyedge.errors import InvalidArgumentError


class Margin(nn.Module):
    """Plain softmax: z_ij = x_i·w_j, no bias.

    Attributes:
        normalize_features, normalize_centers: whether x̃ = x/‖x‖ and w̃ = w/‖w‖.
    """

    normalize_features = False
    normalize_centers = False

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise InvalidArgumentError(f"scale is {scale}; expected a number above 0")
        self._scale = scale

    @property
    def scale(self) -> float:
        """s."""
        return self._scale

    def target(self, cosine: Tensor, feature_norm: Tensor, center_norm: Tensor) -> Tensor:
        """The label's logit [n] from cos θ [n] and the norms of features and centres [n]."""
        return cosine * feature_norm * center_norm

    def advance(self) -> None:
        """One training step is done: what ramps goes on."""


class Softmax(Margin):
    """Softmax cross-entropy on inner products, without a bias."""

    def __init__(self) -> None:
        super().__init__(1.0)


class _Cosine(Margin):
    """Features and centres of length 1: z_ij = s·cos θ_ij."""

    normalize_features = True
    normalize_centers = True

    def target(self, cosine: Tensor, feature_norm: Tensor, center_norm: Tensor) -> Tensor:
        return self.scale * self.psi(cosine)

    def psi(self, cosine: Tensor) -> Tensor:
        """What stands for cos θ of the label."""
        return cosine


class NormFace(_Cosine):
    """s·cos θ for every class (Wang et al., NormFace, ACM MM 2017, eq. 6)."""

    def __init__(self, scale: float = 32.0) -> None:
        super().__init__(scale)


class CombinedMargin(_Cosine):
    """s·(cos(m1·θ + m2) − m3) for the label (Deng et al., ArcFace, CVPR 2019, eq. 4).

    Args:
        monotone: the formula rises again where m1·θ + m2 exceeds π, and pulls the worst faces the
            wrong way. This goes on falling instead, as SphereFace's ψ does:
            (−1)^k·cos(φ) − 2k for φ = m1·θ + m2 in [kπ, (k + 1)π].
    """

    def __init__(
        self,
        scale: float = 64.0,
        m1: float = 1.0,
        m2: float = 0.0,
        m3: float = 0.0,
        monotone: bool = False,
    ) -> None:
        super().__init__(scale)
        if not (m1 > 0 and m2 >= 0 and all(map(math.isfinite, (m1, m2, m3)))):
            raise InvalidArgumentError(f"margins are {m1}, {m2}, {m3}; expected m1 > 0, m2 ≥ 0")
        self.m1, self.m2, self.m3, self.monotone = m1, m2, m3, monotone

    def psi(self, cosine: Tensor) -> Tensor:
        if self.m1 == 1.0 and self.m2 == 0.0:
            return cosine - self.m3
        phi = self.m1 * _angle(cosine) + self.m2
        if not self.monotone:
            return torch.cos(phi) - self.m3
        k = torch.floor(phi.detach() / math.pi)
        return (1 - 2 * (k % 2)) * torch.cos(phi) - 2 * k - self.m3


class CosFace(CombinedMargin):
    """s·(cos θ − m) for the label (Wang et al., CosFace, CVPR 2018, eq. 4).

    The same as AM-softmax (Wang et al., Signal Processing Letters 2018, eq. 6).
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__(scale, m3=margin)


class ArcFace(CombinedMargin):
    """s·cos(θ + m) for the label (Deng et al., ArcFace, CVPR 2019, eq. 3)."""

    def __init__(self, scale: float = 64.0, margin: float = 0.5, monotone: bool = False) -> None:
        super().__init__(scale, m2=margin, monotone=monotone)


class LSoftmax(Margin):
    """‖w‖‖x‖·ψ(θ) for the label (Liu et al., Large-Margin Softmax, ICML 2016, eq. 4 to 6).

    ψ(θ) = (−1)^k·cos(mθ) − 2k for θ in [kπ/m, (k + 1)π/m]. It is blended in by a ramp: the label's
    cosine is (λ·cos θ + ψ(θ)) / (1 + λ) with λ = max(lowest, base·(1 + gamma·t)^−power) after t
    steps (section 5 there; Liu et al., CVPR 2017, appendix). `lowest` is `default_lowest` unless
    given.
    """

    default_lowest = 0.0

    def __init__(
        self,
        m: int = 4,
        base: float = 1000.0,
        gamma: float = 0.12,
        power: float = 1.0,
        lowest: float | None = None,
    ) -> None:
        super().__init__(1.0)
        if m < 1:
            raise InvalidArgumentError(f"m is {m}; expected a whole number from 1 on")
        self.m, self.base, self.gamma, self.power = m, base, gamma, power
        self.lowest = self.default_lowest if lowest is None else lowest
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.step: Tensor

    @property
    def blend(self) -> float:
        """λ of this step."""
        return max(self.lowest, self.base * (1 + self.gamma * int(self.step)) ** -self.power)

    def advance(self) -> None:
        self.step += 1

    def psi(self, cosine: Tensor) -> Tensor:
        """ψ(θ), with cos(mθ) as Chebyshev's polynomial of cos θ: no arc cosine, no pole."""
        before, chebyshev = torch.ones_like(cosine), cosine
        for _ in range(self.m - 1):
            before, chebyshev = chebyshev, 2 * cosine * chebyshev - before
        bounds = [math.cos(j * math.pi / self.m) for j in range(1, self.m)]
        k = sum((cosine.detach() < bound).to(cosine.dtype) for bound in bounds)
        k = k if isinstance(k, Tensor) else torch.zeros_like(cosine)
        return (1 - 2 * (k % 2)) * chebyshev - 2 * k

    def target(self, cosine: Tensor, feature_norm: Tensor, center_norm: Tensor) -> Tensor:
        blended = (self.blend * cosine + self.psi(cosine)) / (1 + self.blend)
        length = feature_norm if self.normalize_centers else feature_norm * center_norm
        return length * blended


class ASoftmax(LSoftmax):
    """‖x‖·ψ(θ) for the label, ‖w‖ = 1 (Liu et al., SphereFace, CVPR 2017, eq. 7)."""

    normalize_centers = True
    default_lowest = 5.0


class AdaCos(_Cosine):
    """s·cos θ with a scale that follows the batch (Zhang et al., AdaCos, CVPR 2019).

    Begins at √2·ln(C − 1) for C classes (eq. 12); see `adapt` for the steps after.
    """

    def __init__(self, classes: int) -> None:
        if classes < 3:
            raise InvalidArgumentError(f"AdaCos over {classes} classes; expected at least 3")
        super().__init__(math.sqrt(2) * math.log(classes - 1))
        self.register_buffer("adapted", torch.tensor(self._scale, dtype=torch.float64))
        self.adapted: Tensor

    @property
    def scale(self) -> float:
        """s of the last batch."""
        return float(self.adapted)

    def adapt(self, other_exponentials: Tensor, cosine: Tensor) -> None:
        """Sets the scale for this batch: ln(B_avg) / cos(min(π/4, θ_med)) (eq. 15).

        Args:
            other_exponentials: [B], Σ exp(s·cos θ_ij) over all classes but the label's, at the
                scale so far.
            cosine: [B], cos θ of the labels.
        """
        average = other_exponentials.mean()
        median = _angle(cosine).median()
        self.adapted.copy_(torch.log(average) / torch.cos(median.clamp(max=math.pi / 4)))


def _angle(cosine: Tensor) -> Tensor:
    """θ, a little inside of 0 and π, where the arc cosine has no derivative."""
    inside = 1 - 4 * torch.finfo(cosine.dtype).eps
    return torch.acos(cosine.clamp(-inside, inside))
