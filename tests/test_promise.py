"""The numerics promise: one INT8 model gives the same bytes on every instruction set, any number of
threads and in any batch, on whole networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import export, iresnet, mobilefacenet

import pyedge
from pyedge.converters import convert

FEATURES = pyedge.features()["isa"]
ISAS = [name for name, row in FEATURES.items() if row["available"]]
MISSING = [name for name in FEATURES if name not in ISAS]


def quantized(source: Path, side: int) -> pyedge.Session:
    target = source.with_suffix(".pye")
    batches = [images(2, side, seed) for seed in range(2)]
    convert(source, target, precision="int8", calibration=batches)
    return pyedge.Session(target, isa="reference")


def images(batch: int, side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 3, side, side)).astype(np.float32)


@pytest.fixture(
    scope="module",
    params=["mobilefacenet", "iresnet18", "mobilefacenet.onnx", "face-reid-0095.onnx"],
)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pyedge.Session, np.ndarray, list[np.ndarray]]:
    """A quantized network, a batch of three, and what the reference kernels make of it."""
    folder = tmp_path_factory.mktemp("promise")
    source = folder / "model.onnx"
    side = 112
    if request.param.endswith(".onnx"):
        assets: Path = request.getfixturevalue("assets")
        source.write_bytes((assets / "models" / request.param).read_bytes())
        side = 128 if "reid" in request.param else 112
    else:
        model = mobilefacenet() if request.param == "mobilefacenet" else iresnet(18)
        onnx.save(export(model, (1, 3, side, side)), source)
    session = quantized(source, side)
    x = images(3, side, 7)
    return session, x, session.run(x)


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("isa", ISAS[1:])
def test_same_bytes(
    case: tuple[pyedge.Session, np.ndarray, list[np.ndarray]], isa: str, threads: int
) -> None:
    reference, x, expected = case
    session = pyedge.Session(reference, threads, isa)
    assert any(isa in (layer["kernel"] or "") for layer in session.describe()["layers"])
    assert same(session.run(x), expected)
    for i in range(len(x)):
        assert same(session.run(x[i : i + 1]), [y[i : i + 1] for y in expected])


@pytest.mark.skipif(not MISSING, reason="this CPU runs every instruction set")
def test_other_instruction_sets() -> None:
    pytest.skip(f"NOT TESTED on this CPU: {', '.join(MISSING)}")
