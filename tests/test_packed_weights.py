"""What becomes of a model's weights once they are packed, and of the file that keeps them."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_session import ISAS, images, network

import pyedge
from pyedge.converters import native
from pyedge.converters.ir import Graph, Node, Tensor

MASK = (1 << 64) - 1
HEADER, ENTRY, CHECKSUM_AT = 64, 64, 56
BEST = ISAS[-1]
packs = pytest.mark.skipif(BEST == "reference", reason="only the reference, which packs nothing")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pye"
    path.write_bytes(native.write(network()))
    return path


def run(session: pyedge.Session) -> bytes:
    return session.run(images(2))[0].tobytes()


def checksum(data: bytes) -> int:
    """As csrc/digest/checksum.cc has it."""

    def step(total: int, word: int) -> int:
        x = ((total ^ word) * 0x9E3779B97F4A7C15) & MASK
        return (x << 29 | x >> 35) & MASK

    lanes = list(range(1, 9))
    for at in range(0, len(data), 64):
        for lane, word in enumerate(struct.unpack_from("<8Q", data, at)):
            lanes[lane] = step(lanes[lane], word)
    total = 0
    for lane in lanes:
        total = step(total, lane)
    return total


def sealed(data: bytearray) -> bytes:
    struct.pack_into("<Q", data, CHECKSUM_AT, 0)
    struct.pack_into("<Q", data, CHECKSUM_AT, checksum(data))
    return bytes(data)


@packs
@pytest.mark.parametrize("folder", [False, True])
def test_the_next_start_maps_what_the_first_packed(
    model: Path, tmp_path: Path, folder: bool
) -> None:
    cache = tmp_path / ("" if folder else "weights.pyepack")
    first = pyedge.Session(model, cache=cache)
    expected = run(first)
    assert first.describe()["mapped_bytes"] == 0
    (file,) = tmp_path.glob("*.pyepack")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    data = file.read_bytes()
    assert sealed(bytearray(data)) == data
    assert str(tmp_path).encode() not in data
    before = file.stat()
    second = pyedge.Session(model, cache=cache)
    assert run(second) == expected
    memory = second.describe()
    assert memory["mapped_bytes"] == memory["packed_bytes"] == first.describe()["packed_bytes"] > 0
    assert memory["cache_problem"] is None
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file.stat().st_ino == before.st_ino
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([model.name, file.name])


def test_instruction_sets_and_models_share_a_folder(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pye"
    other.write_bytes(native.write(network(channels=9)))
    expected = {path: run(pyedge.Session(path)) for path in (model, other)}
    for _ in range(2):
        for path in (model, other):
            for isa in ISAS:
                assert run(pyedge.Session(path, isa=isa, cache=tmp_path)) == expected[path]
    for path in (model, other):
        for isa in ISAS:
            session = pyedge.Session(path, isa=isa, cache=tmp_path)
            memory = session.describe()
            assert memory["mapped_bytes"] == memory["packed_bytes"]


@packs
def test_a_damaged_file_is_written_anew(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "weights.pyepack"
    expected = run(pyedge.Session(model, cache=cache))
    good = cache.read_bytes()
    random = np.random.default_rng(3)
    flips = [*range(HEADER + ENTRY), *random.integers(0, len(good), 60).tolist()]
    broken = [good[:size] for size in (0, 1, 8, 63, 64, 65, 128, len(good) - 64, len(good) - 1)]
    broken += [good + bytes(64), bytes(len(good)), random.bytes(len(good))]
    for at in flips:
        data = bytearray(good)
        data[at] ^= 1 << int(random.integers(8))
        broken.append(bytes(data))
    for data in broken:
        cache.write_bytes(data)
        session = pyedge.Session(model, cache=cache)
        assert run(session) == expected
        assert session.describe()["mapped_bytes"] == 0
        assert cache.read_bytes() == good


@packs
def test_a_file_that_lies_is_written_anew(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "weights.pyepack"
    expected = run(pyedge.Session(model, cache=cache))
    good = cache.read_bytes()
    entries = struct.unpack_from("<I", good, 12)[0]
    assert len(good) == struct.unpack_from("<Q", good, 16)[0]
    lies = [
        ("<I", 8, 2),  # version
        ("<I", 12, 0xFFFFFFFF),  # entries
        ("<I", 12, entries + 1),
        ("<Q", 16, 2 * len(good)),  # size of the file
        ("<Q", 24, 0),  # key
        ("<I", HEADER, 0xFFFFFFFF),  # node
        ("<I", HEADER + 4, 1),  # reserved
        ("<Q", HEADER + 8, MASK - 63),  # offset
        ("<Q", HEADER + 8, len(good)),
        ("<Q", HEADER + 8, 8),
        ("<Q", HEADER + 16, MASK),  # bytes
        ("<Q", HEADER + 16, len(good)),
        ("<Q", HEADER + 24, MASK),  # name of the kernel
    ]
    for form, at, value in lies:
        data = bytearray(good)
        struct.pack_into(form, data, at, value)
        cache.write_bytes(sealed(data))
        session = pyedge.Session(model, cache=cache)
        assert run(session) == expected
        assert session.describe()["mapped_bytes"] == 0
        assert cache.read_bytes() == good
    # A block of another size than the kernel's is not taken; the others are.
    data = bytearray(good)
    (size,) = struct.unpack_from("<Q", good, HEADER + 16)
    struct.pack_into("<Q", data, HEADER + 16, size - 1)
    cache.write_bytes(sealed(data))
    session = pyedge.Session(model, cache=cache)
    assert run(session) == expected
    memory = session.describe()
    assert memory["packed_bytes"] - memory["mapped_bytes"] == size
    assert cache.read_bytes() == good


@packs
def test_a_file_that_others_can_write_is_not_used(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "weights.pyepack"
    expected = run(pyedge.Session(model, cache=cache))
    for mode in (0o620, 0o602):
        cache.chmod(mode)
        session = pyedge.Session(model, cache=cache)
        assert run(session) == expected
        assert session.describe()["mapped_bytes"] == 0
        assert stat.S_IMODE(cache.stat().st_mode) == 0o600


def test_no_other_file_is_overwritten(model: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear pyedge")
    for path in (letter, model):
        before = path.read_bytes()
        with pytest.raises(pyedge.InvalidArgumentError, match="not a file of packed weights"):
            pyedge.Session(model, cache=path)
        assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pyedge.Session(model, cache=tmp_path / "nowhere" / "weights.pyepack")
    with pytest.raises(pyedge.InvalidArgumentError, match="cache"):
        pyedge.Session(pyedge.Session(model), cache=tmp_path)


@packs
def test_a_cache_that_cannot_be_written_costs_nothing_else(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    session = pyedge.Session(model, cache=folder / "weights.pyepack")
    folder.rmdir()
    assert run(session) == run(pyedge.Session(model))
    assert "No such file" in session.describe()["cache_problem"]


@packs
def test_packed_weights_leave_memory_and_come_back(model: Path) -> None:
    session = pyedge.Session(model)
    assert session.describe()["model_bytes"] == 0
    assert session.describe()["file_bytes"] == model.stat().st_size
    expected = run(session)
    # The reference needs the weights themselves. The file may have been moved away meanwhile.
    replacement = model.with_name("new")
    replacement.write_bytes(b"another model")
    replacement.replace(model)
    reference = pyedge.Session(session, isa="reference")
    assert reference.run(images(2))[0].shape == session.run(images(2))[0].shape
    assert 0 < session.describe()["model_bytes"] < session.describe()["file_bytes"]
    assert run(session) == expected
    again = pyedge.Session(native.write(network()))
    assert run(pyedge.Session(again, isa="reference")) == run(reference)
    assert again.describe()["model_bytes"] == again.describe()["file_bytes"]


@packs
@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_file_that_changes_in_use_is_noticed(model: Path, damage: str) -> None:
    session = pyedge.Session(model)
    expected = run(session)
    with model.open("r+b") as file:
        if damage == "truncated":
            file.truncate(1000)
        else:
            file.seek(-8, os.SEEK_END)
            file.write(b"overdone")
    assert run(session) == expected
    with pytest.raises(pyedge.PyEdgeError, match="overwritten while it was in use"):
        pyedge.Session(session, isa="reference").run(images(2))
    assert run(session) == expected


@packs
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    """The resident memory of a process grows by the packed weights, not by the file too."""
    graph = Graph(inputs=["x"], outputs=["y"])
    graph.tensors["x"] = Tensor("x", "f32", (-1, 1024))
    graph.add_value("y")
    graph.add_constant("w", np.random.default_rng(1).normal(size=(2560, 1024)))
    bounds = {"act_min": float("-inf"), "act_max": float("inf")}
    graph.nodes = [Node("fully_connected", "large", ["x", "w"], ["y"], bounds)]
    path = tmp_path / "large.pye"
    path.write_bytes(native.write(graph))
    code = """
import os, sys
import pyedge
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
before = resident()
session = pyedge.Session(sys.argv[1])
session.prepare([[1, 1024]])
print(resident() - before, session.describe([[1, 1024]])["packed_bytes"])
"""
    command = [sys.executable, "-P", "-c", code, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    grown, packed = map(int, done.stdout.split())
    assert packed > 10e6
    assert grown < packed + 4e6
