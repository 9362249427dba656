"""The networks that are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pyedge.errors import InvalidArgumentError
from pyedge.trainer.backbones import NAMES, Bottleneck, ConvBlock, backbone

# Chen et al., MobileFaceNets (2018), table 1: expansion, channels, repeats, stride.
TABLE_1 = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def test_mobilefacenet_is_that_of_the_paper() -> None:
    """Layer for layer, with the same initial weights: checkpoints and seeds go on to hold."""
    torch.manual_seed(3)
    layers: list[nn.Module] = [ConvBlock(3, 64, 3, 2, 1), ConvBlock(64, 64, 3, 1, 1, groups=64)]
    channels = 64
    for expansion, outputs, repeats, stride in TABLE_1:
        for index in range(repeats):
            hidden = channels * expansion
            layers.append(Bottleneck(channels, hidden, outputs, 1 if index else stride))
            channels = outputs
    layers += [ConvBlock(128, 512, 1), ConvBlock(512, 512, 7, groups=512, linear=True)]
    network = nn.Sequential(*layers, ConvBlock(512, 128, 1, linear=True))
    expected = network.state_dict(prefix="layers.")
    torch.manual_seed(3)
    found = backbone("mobilefacenet", 128).state_dict()
    assert [*found] == [*expected]
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert {"layers.0.0.weight", "layers.2.layers.1.2.weight", "layers.19.1.bias"} <= set(found)


@pytest.mark.parametrize("name", NAMES)
def test_any_side_of_sixteens(name: str) -> None:
    with torch.device("meta"):
        network = backbone(name, 24, 48).eval()
        assert network(torch.zeros(3, 3, 48, 48)).shape == (3, 24)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "mbf_small"}, "backbone is 'mbf_small'; expected mobilefacenet, mbf, mbf_large,"),
        ({"width": 32}, "width is 32; expected 64: only IResNet has others, not mbf"),
        ({"dropout": 0.4}, "dropout: mbf has none; expected 0"),
        ({"size": 40}, "size is 40; expected a multiple of 16"),
        ({"features": 0}, "features is 0; expected a length of 1"),
    ],
)
def test_what_a_network_has_not(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        backbone(**({"name": "mbf", "features": 8} | given))
