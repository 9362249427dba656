"""Preprocessing: what a TOML file may say, and what becomes of a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyedge.errors import InvalidArgumentError
from pyedge.metadata import ARCFACE_LANDMARKS, Metadata, Preprocessing

TOML = """
color = "rgb"
input_size = [112, 112]
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
landmarks = "arcface"
embedding_size = 128
model_name = "mobilefacenet"
feature_space = "mobilefacenet-1"
"""


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(TOML)
    metadata = Metadata.from_toml(path)
    assert metadata.input_size == (112, 112)
    assert metadata.landmarks == ARCFACE_LANDMARKS
    assert metadata.scale == pytest.approx((1 / 58.395, 1 / 57.12, 1 / 57.375))
    assert (metadata.embedding_size, metadata.model_name) == (128, "mobilefacenet")


def test_numbers_stand_for_all_channels_and_both_sides() -> None:
    metadata = Metadata.from_dict({"color": "bgr", "input_size": 128, "mean": 127.5, "std": 128})
    assert metadata.input_size == (128, 128)
    assert metadata.mean == (127.5, 127.5, 127.5)
    assert metadata.scale == (1 / 128, 1 / 128, 1 / 128)
    points = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10.5]]
    assert Metadata.from_dict({"landmarks": points}).landmarks[4] == (9.0, 10.5)
    assert Metadata().color == "none"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "rgb", "sigma": 1}, "unknown key 'colour', 'sigma'"),
        ({"color": "RGB"}, "color is 'RGB'"),
        ({"color": 3}, "color is 3"),
        ({"input_size": [112]}, "input_size"),
        ({"input_size": [112, -1]}, "input_size"),
        ({"input_size": [112, 112.0]}, "input_size"),
        ({"input_size": True}, "input_size"),
        ({"input_size": 70000}, "input_size"),
        ({"mean": [1, 2]}, "mean is"),
        ({"mean": float("nan")}, "mean is nan"),
        ({"mean": "127"}, "mean is '127'"),
        ({"scale": 0}, "scale is 0"),
        ({"scale": [1, float("inf"), 1]}, "scale is"),
        ({"std": [1, 0, 1]}, "std is"),
        ({"std": -1}, "std is"),
        ({"std": 1, "scale": 1}, "both"),
        ({"sigma": 1}, "expected .*std"),
        ({"mean": 1e39}, "mean is"),
        ({"mean": 10**400}, "mean is"),
        ({"scale": 1e39}, "scale is"),
        ({"scale": 3e38}, "out of float32's range"),
        ({"scale": 1e-40}, "out of float32's range"),
        ({"scale": 1e36, "mean": 1e3}, "out of float32's range"),
        ({"std": 1e-39}, "std is"),
        ({"std": 5e-324}, "std is"),
        ({"std": 3e38}, "out of float32's range"),
        ({"landmarks": [[1e39, 1], [2, 3], [4, 4], [9, 5], [3, 1]]}, "five points"),
        ({"landmarks": [[1, 2]] * 5}, "one place or line"),
        ({"landmarks": [[i, 50 - 2 * i] for i in range(5)]}, "one place or line"),
        ({"embedding_size": 2**31}, "embedding_size"),
        ({"landmarks": [[1, 2]] * 4}, "five points"),
        ({"landmarks": [[1, 2, 3]] * 5}, "five points"),
        ({"landmarks": "dlib", "input_size": 112}, "five points"),
        ({"landmarks": "arcface", "input_size": 128}, "needs input_size"),
        ({"embedding_size": -1}, "embedding_size"),
        ({"embedding_size": 1.5}, "embedding_size"),
        ({"model_name": 5}, "model_name"),
    ],
)
def test_lies_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Metadata.from_dict(values)


def test_toml_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    with pytest.raises(InvalidArgumentError, match=r"model\.toml: cannot be read"):
        Metadata.from_toml(path)
    for text in ("color = ", 'color = "xyz"'):
        path.write_text(text)
        with pytest.raises(InvalidArgumentError, match=r"model\.toml: "):
            Metadata.from_toml(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgumentError, match="not TOML"):
        Metadata.from_toml(path)
    path.write_text("landmarks = 'arcface'")
    with pytest.raises(InvalidArgumentError, match="unknown key 'landmarks'"):
        Preprocessing.from_toml(path)


def test_apply_is_one_subtraction_and_one_multiplication() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    mean, scale = (10.1, 20.2, 30.3), (0.1, 1 / 3, 7.0)
    rgb = Preprocessing("rgb", (6, 4), mean, scale).apply(crops)
    bgr = Preprocessing("bgr", (6, 4), mean, scale).apply(crops)
    assert rgb.dtype == np.float32
    assert rgb.shape == (2, 3, 4, 6)
    assert rgb.flags.c_contiguous
    for channel in range(3):
        for tensor, plane in ((rgb, crops[..., channel]), (bgr, crops[..., 2 - channel])):
            difference = plane.astype(np.float32) - np.float32(mean[channel])
            expected = difference * np.float32(scale[channel])
            np.testing.assert_array_equal(tensor[:, channel], expected)


def test_apply_refuses() -> None:
    crops = np.zeros((1, 4, 6, 3), np.uint8)
    with pytest.raises(InvalidArgumentError, match="takes no images"):
        Preprocessing().apply(crops)
    preprocessing = Preprocessing("rgb", (6, 4))
    with pytest.raises(InvalidArgumentError, match="6x4"):
        preprocessing.apply(crops.transpose(0, 2, 1, 3))
    for wrong in (crops.astype(np.float32), crops[0], crops[..., :1], crops.tolist()):
        with pytest.raises(InvalidArgumentError, match="expected"):
            preprocessing.apply(wrong)
    assert Preprocessing("rgb").apply(crops).shape == (1, 3, 4, 6)
    assert preprocessing.apply(crops[:0]).shape == (0, 3, 4, 6)
