"""Which kernel of the convolution other CPUs than this one would get, of INT8 but for the last."""

from __future__ import annotations

import platform

import pytest
import test_kernels_conv_f32 as f32
from test_kernels_conv_i8 import Layer, arguments, square

from pyedge import _core

AVX2 = ["avx2", "fma"]
CPUS = {
    "Core 2": [],
    "Haswell": AVX2,
    "Skylake-SP": [*AVX2, "avx512"],
    "Alder Lake": [*AVX2, "avxvnni"],
    "Zen 4": [*AVX2, "avx512", "avx512vnni"],
    "Sapphire Rapids": [*AVX2, "avx512", "avx512vnni", "avxvnni", "amx_int8"],
    "Sapphire Rapids, tiles refused": [*AVX2, "avx512", "avx512vnni", "avxvnni"],
}
BEST = {
    "Core 2": "reference",
    "Haswell": "avx2",
    "Skylake-SP": "avx2",
    "Alder Lake": "avxvnni",
    "Zen 4": "avx512vnni",
    "Sapphire Rapids": "amx",
    "Sapphire Rapids, tiles refused": "avx512vnni",
}
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="NOT TESTED: choice among x86 kernels, on another CPU"
)


def chosen(cpu: str, layer: Layer) -> str:
    return _core.select_op(*arguments(layer), features=CPUS[cpu])


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    "layer",
    [
        Layer(64, 128, **square(1, size=(28, 28))),
        Layer(256, 256, size=(7, 7), stride=(2, 2)),
        Layer(3, 64, size=(56, 56), stride=(2, 2)),
    ],
    ids=["1x1", "stride", "first"],
)
def test_dense_layers_get_the_widest_instructions(cpu, layer):
    assert chosen(cpu, layer) == f"conv_i8_{BEST[cpu]}"


@pytest.mark.parametrize("layer", [Layer(64, 64, size=(14, 14)), Layer(512, 512, size=(7, 7))])
def test_tiles_read_the_image_where_they_can(layer):
    assert chosen("Sapphire Rapids", layer) == "conv_i8_strip_amx"


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("groups", [64, 32, 16, 8])
def test_depthwise_layers_get_depthwise_kernels(cpu, groups):
    """And those of groups of 2, 4 and 8 channels."""
    layer = Layer(64, 64, groups=groups)
    kernel = {"reference": "reference", "amx": "depthwise_avx512vnni"}
    best = BEST[cpu]
    assert chosen(cpu, layer) == f"conv_i8_{kernel.get(best, f'depthwise_{best}')}"


@pytest.mark.parametrize(
    "layer",
    [
        Layer(64, 64, groups=4),
        Layer(64, 128, groups=32),
        Layer(63, 63, groups=21),
        Layer(64, 64, groups=8, stride=(2, 2)),
        Layer(64, 64, size=(33, 33), kernel=(33, 1), groups=64),
    ],
    ids=["many channels", "more out than in", "three channels", "eight, stride", "long kernel"],
)
def test_other_groups_are_dense(layer):
    assert chosen("Zen 4", layer) == "conv_i8_avx512vnni"


@pytest.mark.parametrize(
    "layer",
    [
        Layer(512, 128, **square(1, size=(1, 1))),
        Layer(512, 128, **square(1, size=(1, 1), batch=2)),
        Layer(4, 8, **square(1, size=(2, 2))),
    ],
    ids=["a vector", "two vectors", "few channels"],
)
def test_layers_that_would_leave_tiles_empty_do_not_get_them(layer):
    assert chosen("Sapphire Rapids", layer) == "conv_i8_avx512vnni"


def test_enough_vectors_fill_tiles():
    layer = Layer(512, 128, **square(1, size=(1, 1), batch=16))
    assert chosen("Sapphire Rapids", layer) == "conv_i8_amx"


@pytest.mark.parametrize("cpu", ["Haswell", "Zen 4"])
@pytest.mark.parametrize("layer", [Layer(64, 64, size=(56, 56)), Layer(256, 256, size=(14, 14))])
def test_3x3_layers_get_winograd(cpu, layer):
    assert chosen(cpu, layer) == f"conv_i8_winograd_{BEST[cpu]}"


def test_small_images_leave_winograd_too_few_tiles():
    assert chosen("Zen 4", Layer(64, 64, size=(7, 7))) == "conv_i8_avx512vnni"


@pytest.mark.parametrize(
    ("cpu", "channels", "kernel"),
    [
        ("Haswell", 2, "depthwise_avx2"),
        ("Haswell", 4, "depthwise_avx2"),
        ("Haswell", 8, "avx2"),
        ("Zen 4", 2, "depthwise_avx512vnni"),
        ("Zen 4", 8, "depthwise_avx512vnni"),
        ("Zen 4", 16, "avx512vnni"),
    ],
)
def test_f32_groups_that_would_leave_lanes_empty_get_depthwise_kernels(cpu, channels, kernel):
    arguments = f32.arguments(f32.Layer(64, 64, groups=64 // channels))
    assert _core.select_op(*arguments, features=CPUS[cpu]) == f"conv_f32_{kernel}"
