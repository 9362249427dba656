"""Face networks written in torch, with random but sane weights, exported to ONNX in memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import nn
from torch.nn import functional


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
    """Chen et al., MobileFaceNets (2018), table 1: 112x112 to 128, 0.45 GOP."""

    # expansion, channels, repeats, stride
    STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))

    def __init__(self, features: int = 128) -> None:
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
            ConvBlock(512, 512, 7, groups=512, linear=True),
            ConvBlock(512, features, 1, linear=True),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
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
    """Duta et al., Improved Residual Networks (2020), as face recognition uses it: 112x112 to 512.

    Args:
        repeats: blocks of each of the four stages.
        width: channels of the first stage.
        size: side of the input, a multiple of 16.
    """

    def __init__(
        self, repeats: Sequence[int], features: int = 512, width: int = 64, size: int = 112
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(3, width, 3, 1, 1)]
        channels = width
        for stage, count in enumerate(repeats):
            outputs = width << stage
            for index in range(count):
                layers.append(IResNetBlock(channels, outputs, 1 if index else 2))
                channels = outputs
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.Dropout(0.4))
        self.fc = nn.Linear(channels * (size // 16) ** 2, features)
        self.features = nn.BatchNorm1d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(self.fc(self.layers(x).flatten(1)))


IRESNET_REPEATS = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}


def mobilefacenet(seed: int = 0) -> nn.Module:
    return randomize(MobileFaceNet(), seed)


def iresnet(depth: int, seed: int = 0) -> nn.Module:
    return randomize(IResNet(IRESNET_REPEATS[depth]), seed)


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
