"""Networks that turn aligned faces into features, written plainly: nothing here is distributed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pyedge.errors import InvalidArgumentError

IRESNET_REPEATS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
}
NAMES = ("mobilefacenet", *(f"iresnet{depth}" for depth in IRESNET_REPEATS))
STRIDE = 16  # of all stages together: sides of the input are multiples of it


WIDTH = 64  # channels of the first layer


def backbone(
    name: str, features: int, size: int = 112, dropout: float = 0.0, width: int = WIDTH
) -> nn.Module:
    """A network of `NAMES` with torch's random initial weights.

    Args:
        name: one of `NAMES`.
        features: length of the feature.
        size: side of the input in pixels, a multiple of 16.
        dropout: share of activations before the last layer that a training step drops; only
            IResNet has it.
        width: channels of IResNet's first stage, each further stage has twice as many.

    Returns:
        A module from float [N, 3, size, size] to [N, features], features not normalised.

    Raises:
        InvalidArgumentError: another name, no features, a side that is no multiple of 16, or what
            this network has not.
    """
    if name not in NAMES:
        raise InvalidArgumentError(f"backbone is {name!r}; expected {', '.join(NAMES)}")
    if features < 1:
        raise InvalidArgumentError(f"features is {features}; expected a length of 1 or more")
    if size < STRIDE or size % STRIDE:
        raise InvalidArgumentError(f"size is {size}; expected a multiple of {STRIDE} pixels")
    if not 0.0 <= dropout < 1.0:
        raise InvalidArgumentError(f"dropout is {dropout}; expected a share in [0, 1)")
    if name == "mobilefacenet":
        if dropout:
            raise InvalidArgumentError("dropout: mobilefacenet has none; expected 0")
        if width != WIDTH:
            raise InvalidArgumentError(f"width is {width}; mobilefacenet has {WIDTH}")
        return MobileFaceNet(features, size)
    if width < 1:
        raise InvalidArgumentError(f"width is {width}; expected 1 or more channels")
    repeats = IRESNET_REPEATS[int(name.removeprefix("iresnet"))]
    return IResNet(repeats, features, width, size, dropout)


class ConvBlock(nn.Sequential):
    """Convolution, BatchNorm, and PReLU unless linear."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([] if linear else [nn.PReLU(outputs)]))


class Bottleneck(nn.Module):
    """Inverted residual with a linear projection."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            ConvBlock(inputs, hidden, 1),
            ConvBlock(hidden, hidden, 3, stride, 1, groups=hidden),
            ConvBlock(hidden, outputs, 1, linear=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileFaceNet(nn.Module):
    """Chen et al., MobileFaceNets (2018), table 1: 112×112 to 128, 0.45 GOP.

    Args:
        features: length of the feature.
        size: side of the input in pixels, a multiple of 16.
    """

    # expansion, channels, repeats, stride
    STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))

    def __init__(self, features: int = 128, size: int = 112) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            ConvBlock(3, 64, 3, 2, 1),
            ConvBlock(64, 64, 3, 1, 1, groups=64),
        ]
        channels = 64
        for expansion, outputs, repeats, stride in self.STAGES:
            for index in range(repeats):
                layers.append(Bottleneck(channels, outputs, expansion, stride if not index else 1))
                channels = outputs
        layers += [
            ConvBlock(channels, 512, 1),
            ConvBlock(512, 512, size // STRIDE, groups=512, linear=True),
            ConvBlock(512, features, 1, linear=True),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, size, size] to [N, features]."""
        return self.layers(x).flatten(1)


class IResNetBlock(nn.Module):
    """BN, conv, BN, PReLU, conv, BN, and the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = ConvBlock(inputs, outputs, 1, stride, linear=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + self.shortcut(x)


class IResNet(nn.Module):
    """Duta et al., Improved Residual Networks (2020), as face recognition uses it: 112×112 to 512.

    Args:
        repeats: blocks of each of the four stages; `IRESNET_REPEATS` has them by depth.
        features: length of the feature.
        width: channels of the first stage; each stage has twice those of the one before.
        size: side of the input in pixels, a multiple of 16.
        dropout: share of the last activations that a training step drops.
    """

    def __init__(
        self,
        repeats: Sequence[int],
        features: int = 512,
        width: int = 64,
        size: int = 112,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(3, width, 3, 1, 1)]
        channels = width
        for stage, count in enumerate(repeats):
            outputs = width << stage
            for index in range(count):
                layers.append(IResNetBlock(channels, outputs, 1 if index else 2))
                channels = outputs
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.Dropout(dropout))
        self.fc = nn.Linear(channels * (size // STRIDE) ** 2, features)
        self.features = nn.BatchNorm1d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, size, size] to [N, features]."""
        return self.features(self.fc(self.layers(x).flatten(1)))
