"""A model file cannot lie: every one of its lies has a named error, and none gets further."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from attacks.make import FILE_BYTES, HEADER, Attack, attacks, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

import pyedge
from pyedge.converters import native

VALID = tiny_model()
ATTACKS = list(attacks(VALID))
IMAGE = np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)


def test_valid_file_runs() -> None:
    (embedding,) = pyedge.Session(VALID).run(IMAGE)
    assert embedding.shape == (2, 4)
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)


def test_names_are_unique() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if not a.name.startswith("truncated")], ids=lambda a: a.name
)
def test_lie_is_named(attack: Attack) -> None:
    with pytest.raises(pyedge.InvalidModelError) as error:
        pyedge.Session(attack.data)
    assert attack.field in str(error.value)


def test_truncated_files_are_refused() -> None:
    for attack in ATTACKS:
        if attack.name.startswith("truncated"):
            with pytest.raises(pyedge.InvalidModelError, match=attack.field or "."):
                pyedge.Session(attack.data)


def test_every_altered_byte_is_seen() -> None:
    for at in range(0, len(VALID), 7):
        altered = bytearray(VALID)
        altered[at] ^= 0x10
        with pytest.raises(pyedge.InvalidModelError):
            pyedge.Session(bytes(altered))


def test_file_is_checked_like_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.pye"
    for data in (b"", VALID[:-1], VALID + b"\0"):
        path.write_bytes(data)
        with pytest.raises(pyedge.InvalidModelError):
            pyedge.Session(path)
    path.write_bytes(VALID)
    pyedge.Session(path)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, (len(VALID) - 4) // 4),
            st.one_of(
                st.sampled_from([0, 1, 2, 3, 2**31 - 1, 2**31, 2**32 - 1, 0x7FC00000]),
                st.integers(0, 2**32 - 1),
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_sealed_lies_never_crash(changes: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for word, value in changes:
        if 4 * word >= HEADER:
            struct.pack_into("<I", data, 4 * word, value)
    struct.pack_into("<Q", data, FILE_BYTES, len(data))
    with contextlib.suppress(pyedge.PyEdgeError, MemoryError):
        pyedge.Session(native.seal(bytes(data))).run(IMAGE)
