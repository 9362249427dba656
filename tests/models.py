"""Face networks written in torch, with random but sane weights, exported to ONNX in memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import nn
from torch.nn import functional

from pyedge.trainer.backbones import (
    IRESNET_REPEATS,
    Bottleneck,
    ConvBlock,
    IResNet,
    MobileFaceNet,
    backbone,
)

__all__ = ["IRESNET_REPEATS", "Bottleneck", "ConvBlock", "IResNet", "MobileFaceNet"]


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and BatchNorm statistics under which activations keep their magnitude."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.data.uniform_(low, high, generator=generator)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0.0, (1.0 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                uniform(module.bias, -0.1, 0.1)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            uniform(module.weight, 0.5, 1.2)
            uniform(module.bias, -0.3, 0.3)
            uniform(module.running_mean, -0.2, 0.2)
            uniform(module.running_var, 0.6, 1.4)
        elif isinstance(module, nn.PReLU):
            uniform(module.weight, -0.1, 0.4)
    return model.eval()


def export(
    model: nn.Module,
    shape: Sequence[int],
    opset: int = 13,
    free: dict[int, str] | None = None,
) -> onnx.ModelProto:
    """The model as ONNX, with an input `input` of that shape; `free` names open dimensions."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(*shape),),
            buffer,
            input_names=["input"],
            opset_version=opset,
            dynamic_axes={"input": free} if free else None,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # keeps BatchNormalization nodes
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def export_dynamo(model: nn.Module, shape: Sequence[int], opset: int = 18) -> onnx.ModelProto:
    """As `export`, by the newer exporter, with a free batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(),
            (torch.zeros(2, *shape[1:]),),
            input_names=["input"],
            opset_version=opset,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    return program.model_proto


def mbf() -> nn.Module:
    """InsightFace's MobileFaceNet, with 512 features."""
    return randomize(backbone("mbf", 512))


def mobilefacenet(seed: int = 0) -> nn.Module:
    return randomize(MobileFaceNet(), seed)


def iresnet(depth: int, seed: int = 0) -> nn.Module:
    return randomize(IResNet(IRESNET_REPEATS[depth]), seed)


class SqueezeExcite(nn.Module):
    """A factor for each channel, from the means of all of them."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        squeeze = nn.Conv2d(channels, channels // 4, 1), nn.ReLU()
        excite = nn.Conv2d(channels // 4, channels, 1), gate
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), *squeeze, *excite)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.layers(x)


class GatedBottleneck(nn.Module):
    """An inverted residual with an activation of choice, and squeeze and excite."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: nn.Module) -> None:
        super().__init__()
        hidden = inputs * 4
        self.residual = stride == 1 and inputs == outputs
        gate = nn.Hardsigmoid() if isinstance(activation, nn.Hardswish) else nn.Sigmoid()
        self.layers = nn.Sequential(
            ConvBlock(inputs, hidden, 1, linear=True),
            activation,
            ConvBlock(hidden, hidden, 5, stride, 2, groups=hidden, linear=True),
            activation,
            SqueezeExcite(hidden, gate),
            ConvBlock(hidden, outputs, 1, linear=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV3(nn.Module):
    """In the manner of Howard et al., Searching for MobileNetV3 (2019), for faces: 112x112 to 128.

    Args:
        activation: hard swish, or SiLU for EfficientNet's.
        stages: channels, repeats.
        size: side of the input, a multiple of 16.
    """

    STAGES = ((24, 2), (40, 3), (80, 4))

    def __init__(
        self,
        activation: nn.Module,
        stages: Sequence[tuple[int, int]] = STAGES,
        size: int = 112,
        features: int = 128,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(3, 16, 3, 2, 1, linear=True), activation]
        channels = 16
        for outputs, repeats in stages:
            for index in range(repeats):
                layers.append(GatedBottleneck(channels, outputs, 1 if index else 2, activation))
                channels = outputs
        side = size >> len(stages) + 1
        layers += [
            ConvBlock(channels, 4 * channels, 1, linear=True),
            activation,
            ConvBlock(4 * channels, 4 * channels, side, groups=4 * channels, linear=True),
            ConvBlock(4 * channels, features, 1, linear=True),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).flatten(1)


class GatedNet(nn.Module):
    """Squeeze and excite by fully connected layers, and normalized outputs in two spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = functional.hardswish(self.stem(x))
        gate = functional.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1)
        gate = torch.sigmoid(self.excite(functional.relu6(self.squeeze(gate))))
        x = functional.leaky_relu(x * gate.view(-1, 8, 1, 1), 0.1)
        x = torch.cat([x[:, ::2], x[:, 1::2]], 1).mean([2, 3])
        return functional.normalize(self.fc(x)), x / x.norm(dim=1, keepdim=True)


class PyramidNet(nn.Module):
    """Upsampling to the size of another branch, and a head that flattens the image."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)])
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.down[0](x)
        coarse = self.down[1](fine)
        x = fine + functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        x = x + functional.interpolate(coarse, scale_factor=2, mode="bilinear")
        batch, channels, height, width = self.head(x).shape
        x = self.head(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        return x.softmax(-1)
