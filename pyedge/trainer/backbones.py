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
# Scale and blocks of each `MobileFaceNet`: that of the paper, and two of InsightFace.
MOBILEFACENETS = {
    "mobilefacenet": (1, (1, 4, 6, 2)),
    "mbf": (2, (1, 4, 6, 2)),
    "mbf_large": (4, (2, 8, 12, 4)),
}
NAMES = (*MOBILEFACENETS, *(f"iresnet{depth}" for depth in IRESNET_REPEATS))
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
    if name in MOBILEFACENETS:
        if dropout:
            raise InvalidArgumentError(f"dropout: {name} has none; expected 0")
        if width != WIDTH:
            raise InvalidArgumentError(
                f"width is {width}; expected {WIDTH}: only IResNet has others, not {name}"
            )
        return MobileFaceNet(features, size, *MOBILEFACENETS[name])
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

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
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

    InsightFace (arcface_torch, backbones/mobilefacenet.py) widens it: bottlenecks have the hidden
    channels of the paper between more channels. `MOBILEFACENETS` has scale and blocks by name.

    Args:
        features: length of the feature.
        size: side of the input in pixels, a multiple of 16.
        scale: how many times the channels of the paper there are between bottlenecks.
        blocks: bottlenecks of stride 1 in each stage. A single one in the first stage is, as in the
            paper, no bottleneck but a 3×3 convolution in 64 groups: depthwise where the scale is 1.
    """

    # Of each stage behind the first, which a bottleneck of stride 2 begins: its hidden channels,
    # those of the other bottlenecks, the channels between them.
    STAGES = ((128, 128, 64), (256, 256, 128), (512, 256, 128))

    def __init__(
        self,
        features: int = 128,
        size: int = 112,
        scale: int = 1,
        blocks: Sequence[int] = (1, 4, 6, 2),
    ) -> None:
        super().__init__()
        channels = WIDTH * scale
        first, *others = blocks
        layers: list[nn.Module] = [ConvBlock(3, channels, 3, 2, 1)]
        if first == 1:
            layers.append(ConvBlock(channels, channels, 3, 1, 1, groups=WIDTH))
        else:
            layers += [Bottleneck(channels, 128, channels, 1) for _ in range(first)]
        for (narrowing, hidden, width), count in zip(self.STAGES, others, strict=True):
            outputs = width * scale
            layers.append(Bottleneck(channels, narrowing, outputs, 2))
            layers += [Bottleneck(outputs, hidden, outputs, 1) for _ in range(count)]
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
