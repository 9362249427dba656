"""Networks of InsightFace's arcface_torch, with the names that it gives their layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from pyedge.trainer.backbones import IRESNET_REPEATS

FEATURES = 8


class TheirBlock(nn.Module):
    """A block with the names that arcface_torch gives its parts."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv1(self.bn1(x)))
        y = self.bn3(self.conv2(self.prelu(y)))
        return y + (x if self.downsample is None else self.downsample(x))


class TheirIResNet(nn.Module):
    """IResNet with the names that arcface_torch gives its layers."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        channels = 64
        for stage, count in enumerate(IRESNET_REPEATS[depth]):
            outputs = 64 << stage
            blocks = [
                TheirBlock(channels if i == 0 else outputs, outputs, 1 if i else 2)
                for i in range(count)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            channels = outputs
        self.bn2 = nn.BatchNorm2d(512)
        self.dropout = nn.Dropout(0.0)
        self.fc = nn.Linear(512 * 7 * 7, FEATURES)
        self.features = nn.BatchNorm1d(FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


class Layers(nn.Module):
    """Layers one behind the other; a residual block adds its input."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def linear(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1
) -> Layers:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return Layers(conv, nn.BatchNorm2d(outputs))


def conv(inputs: int, outputs: int, *geometry: int) -> Layers:
    return Layers(*linear(inputs, outputs, *geometry).layers, nn.PReLU(outputs))


def bottleneck(inputs: int, hidden: int, outputs: int, stride: int, residual: bool) -> Layers:
    depthwise = conv(hidden, hidden, 3, stride, 1, hidden)
    return Layers(conv(inputs, hidden), depthwise, linear(hidden, outputs), residual=residual)


def halving(inputs: int, hidden: int, outputs: int) -> Layers:
    return bottleneck(inputs, hidden, outputs, 2, residual=False)


def chain(channels: int, hidden: int, count: int) -> Layers:
    blocks = (bottleneck(channels, hidden, channels, 1, residual=True) for _ in range(count))
    return Layers(*blocks)


class TheirMobileFaceNet(nn.Module):
    """MobileFaceNet with the names that arcface_torch gives its layers."""

    def __init__(self, scale: int, blocks: Sequence[int]) -> None:
        super().__init__()
        few, many = 64 * scale, 128 * scale
        grouped = blocks[0] == 1
        self.layers = nn.ModuleList(
            [
                conv(3, few, 3, 2, 1),
                conv(few, few, 3, 1, 1, 64) if grouped else chain(few, 128, blocks[0]),
                halving(few, 128, few),
                chain(few, 128, blocks[1]),
                halving(few, 256, many),
                chain(many, 256, blocks[2]),
                halving(many, 512, many),
                chain(many, 256, blocks[3]),
            ]
        )
        self.conv_sep = conv(many, 512)
        self.features = Layers(
            linear(512, 512, 7, 1, 0, 512),
            nn.Flatten(),
            nn.Linear(512, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


# By their names here.
THEIRS: dict[str, Callable[[], nn.Module]] = {
    "mobilefacenet": partial(TheirMobileFaceNet, 1, (1, 4, 6, 2)),
    "mbf": partial(TheirMobileFaceNet, 2, (1, 4, 6, 2)),
    "mbf_large": partial(TheirMobileFaceNet, 4, (2, 8, 12, 4)),
    **{f"iresnet{depth}": partial(TheirIResNet, depth) for depth in IRESNET_REPEATS},
}
