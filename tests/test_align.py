"""Alignment: the transform is the best one, and the warp samples where it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyedge.align import align, crops_for_model, similarity_transform, warp
from pyedge.errors import InvalidArgumentError
from pyedge.metadata import ARCFACE_LANDMARKS, Metadata

ARCFACE = np.array(ARCFACE_LANDMARKS)
REID = np.array([(0.3156, 0.4616), (0.6826, 0.4616), (0.5003, 0.6405), (0.3495, 0.8247),
                 (0.6534, 0.8247)]) * 128  # fmt: skip


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


def transformed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin(x / 17), 128 + 100 * np.cos(y / 13), (x + y) % 200]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0, math.pi])
def test_transform_finds_an_exact_similarity(angle: float) -> None:
    matrix = similarity(0.37, angle, (-5.0, 812.5))
    found = similarity_transform(ARCFACE, transformed(matrix, ARCFACE))
    np.testing.assert_allclose(found, matrix, atol=1e-9)


def test_transform_is_the_least_squares_one() -> None:
    """No similarity nearby, and none by the normal equations, has a smaller error."""
    random = np.random.default_rng(0)
    target = transformed(similarity(1.4, 0.3, (3, 4)), ARCFACE) + random.normal(0, 3, (5, 2))
    found = similarity_transform(ARCFACE, target)
    x, y = ARCFACE.T
    one, zero = np.ones(5), np.zeros(5)
    system = np.concatenate(
        [np.column_stack([x, -y, one, zero]), np.column_stack([y, x, zero, one])]
    )
    a, b, dx, dy = np.linalg.lstsq(system, target.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(found, [[a, -b, dx], [b, a, dy]], atol=1e-9)


def test_mirrored_points_are_not_mirrored_back() -> None:
    matrix = similarity_transform(ARCFACE * [-1, 1], ARCFACE)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize(
    "points", [np.ones((5, 2)), np.full((5, 2), np.nan), np.ones((5, 3)), np.ones((1, 2))]
)
def test_impossible_points_are_refused(points: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError):
        similarity_transform(points, np.ones_like(points))
    with pytest.raises(InvalidArgumentError):
        align(smooth(20, 20), points)


def test_warp_against_scalar_bilinear() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    matrix = similarity(1.3, 0.5, (2.2, -3.1))
    width, height = 13, 10
    output = warp(image[None], matrix, (width, height))[0]
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))

    def pixel(x: int, y: int) -> np.ndarray:
        inside = 0 <= x < 11 and 0 <= y < 9
        return image[y, x].astype(float) if inside else np.zeros(3)

    for v in range(height):
        for u in range(width):
            x, y, _ = inverse @ [u, v, 1]
            left, top = math.floor(x), math.floor(y)
            a, b = x - left, y - top
            expected = (
                (1 - a) * (1 - b) * pixel(left, top)
                + a * (1 - b) * pixel(left + 1, top)
                + (1 - a) * b * pixel(left, top + 1)
                + a * b * pixel(left + 1, top + 1)
            )
            assert np.abs(output[v, u] - expected).max() <= 0.5 + 1e-9


def test_identity_warp_and_far_outside() -> None:
    image = smooth(30, 40)[None]
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(warp(image, identity, (40, 30)), image)
    far = np.array([[1.0, 0, 1e18], [0, 1, -1e18]])
    assert not warp(image, far, (40, 30)).any()


def test_align_of_an_aligned_face_is_the_same() -> None:
    crop = smooth(112, 112)
    np.testing.assert_array_equal(align(crop, ARCFACE), crop)


def test_align_undoes_a_similarity() -> None:
    crop = smooth(112, 112)
    matrix = similarity(3.0, 0.3, (150, 40))
    image = warp(crop[None], matrix, (500, 500))[0]
    error = align(image, transformed(matrix, ARCFACE)).astype(float) - crop
    assert np.abs(error[2:-2, 2:-2]).mean() < 2


def test_align_at_the_border_and_beyond_is_black() -> None:
    image = np.full((400, 300, 3), 255, np.uint8)
    assert (align(image, ARCFACE + 100) == 255).all()
    half = align(image, ARCFACE - [56, 0])
    assert not half[:, :55].any()
    assert (half[:, 57:] == 255).all()
    for scale in (1, 10):
        assert not align(image, ARCFACE * scale + [9000, 9000]).any()
        assert not align(image, ARCFACE * scale - [9000, 9000]).any()


def test_crops_for_model() -> None:
    crops = np.stack([smooth(112, 112), smooth(112, 112)[::-1]])
    arcface = Metadata("rgb", (112, 112), landmarks=ARCFACE_LANDMARKS)
    assert crops_for_model(crops, arcface) is crops
    assert crops_for_model(crops, Metadata("rgb", (112, 112))) is crops
    reid = Metadata("bgr", (128, 128), landmarks=tuple(map(tuple, REID)))
    found = crops_for_model(crops, reid)
    assert found.shape == (2, 128, 128, 3)
    matrix = similarity_transform(ARCFACE, REID)
    np.testing.assert_array_equal(found[1], warp(crops[1:], matrix, (128, 128))[0])
    resized = crops_for_model(crops, Metadata("rgb", (224, 112)))
    assert resized.shape == (2, 112, 224, 3)
    assert abs(resized.astype(float).mean() - crops.mean()) < 2
    for wrong in (crops[:, 1:], crops.astype(np.float32), crops[0]):
        with pytest.raises(InvalidArgumentError):
            crops_for_model(wrong, arcface)
    with pytest.raises(InvalidArgumentError, match="no input size"):
        crops_for_model(crops, Metadata())
