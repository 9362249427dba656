"""The machine code of AVX-VNNI and AMX kernels on a CPU that has neither, in an emulator.

On a CPU that has them the tests of kernels run the same code at full speed.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_kernels_conv_i8 import Layer, arguments, name_of, square

from pyedge import _core

REFERENCE = "conv_i8_reference"
ALIGNMENT = 64


@pytest.fixture(scope="module")
def cpu():
    try:
        import bochscpu  # noqa: F401
    except ImportError as error:
        pytest.skip(f"NOT TESTED: AVX-VNNI and AMX in an emulator, without bochscpu ({error})")
    from emulated_cpu import Cpu

    return Cpu()


def block(size: int) -> tuple[np.ndarray, int]:
    """Memory, and an aligned address in it."""
    memory = np.full(size + 2 * ALIGNMENT, 0x7F, np.uint8)
    address = memory.ctypes.data
    return memory, -(-address // ALIGNMENT) * ALIGNMENT


def emulated(cpu, kernel: str, args: tuple) -> np.ndarray | None:
    """Every function of the kernel in the emulator, the tasks in two calls."""
    case = _core.OpCase(*args)
    at = case.addresses(kernel)
    if not cpu.call(at["accepts"], at["args"]) & 0xFF:
        return None
    prepared_memory, prepared = block(cpu.call(at["prepared_bytes"], at["args"]))
    cpu.call(at["prepare"], at["args"], prepared)
    scratch_memory, scratch = block(cpu.call(at["scratch_bytes"], at["args"]))
    tasks = cpu.call(at["tasks"], at["args"])
    for begin, end in ((0, tasks // 2), (tasks // 2, tasks)):
        cpu.call(at["run"], at["args"], prepared, scratch, begin, end)
    del prepared_memory, scratch_memory
    return case.output()


DENSE = [
    Layer(3, 17, **square(3, stride=(2, 2), zero_points=(-128, 0, 0))),
    Layer(64, 65, size=(3, 9), slope=True, residual=True, zero_points=(11, -128, 20)),
    Layer(127, 33, **square(1, size=(5, 7), values="corners", out_dtype="f32")),
    Layer(96, 24, **square(1, size=(1, 3), batch=3, bounds=(0.0, 1.5))),
    Layer(10, 20, groups=2, size=(4, 5), values="lowest", zero_points=(127, 0, 0)),
    Layer(40, 33, size=(4, 5), activation=3, zero_points=(-128, -110, 0)),
    Layer(40, 33, **square(1, size=(4, 5), activation=2, out_dtype="f32")),
]
DEPTHWISE = [
    Layer(17, 17, groups=17, slope=True, zero_points=(-128, 0, 0)),
    Layer(70, 70, groups=70, **square(5, stride=(2, 2), residual=True, values="highest")),
    Layer(17, 17, groups=17, activation=4),
]


STRIPS = [
    Layer(64, 65, size=(3, 9), slope=True, residual=True, zero_points=(11, -128, 20)),
    Layer(3, 24, size=(9, 40), batch=2, values="corners", out_dtype="f32"),
    Layer(17, 70, kernel=(2, 5), pads=(0, 3, 1, 0), dilation=(2, 1), zero_points=(-128, 0, 0)),
]


@pytest.mark.parametrize("layer", DENSE, ids=name_of)
@pytest.mark.parametrize("kernel", ["conv_i8_avxvnni", "conv_i8_amx"])
def test_dense_kernels_give_the_bytes_of_the_reference(cpu, kernel, layer):
    check(cpu, kernel, layer)


@pytest.mark.parametrize("layer", STRIPS, ids=name_of)
def test_strips_give_the_bytes_of_the_reference(cpu, layer):
    check(cpu, "conv_i8_strip_amx", layer)


@pytest.mark.parametrize("layer", DEPTHWISE, ids=name_of)
def test_depthwise_kernels_give_the_bytes_of_the_reference(cpu, layer):
    check(cpu, "conv_i8_depthwise_avxvnni", layer)


def check(cpu, kernel: str, layer: Layer) -> None:
    args = arguments(layer)
    want = _core.run_op(*args, kernel=REFERENCE)
    before = cpu.tile_instructions
    got = emulated(cpu, kernel, args)
    assert got is not None, "the kernel does not take the layer"
    # Of f32 outputs the sign of a zero is not promised.
    assert (got + got.dtype.type(0)).tobytes() == (want + want.dtype.type(0)).tobytes()
    assert (cpu.tile_instructions > before) == ("amx" in kernel)
    assert cpu.tiles.config == bytes(64), "tiles were not released"
