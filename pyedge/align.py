"""Face alignment: five landmarks to a crop, by a similarity transform and a bilinear warp.

Coordinates are (x, y) in pixels, and the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

import numpy as np

from pyedge.errors import InvalidArgumentError
from pyedge.images import check_image
from pyedge.metadata import ARCFACE_LANDMARKS, ARCFACE_SIZE, Metadata, Points, check_crops


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, uniform scale and shift that best take `source` to `target`.

    Least squares without reflection: S. Umeyama, "Least-squares estimation of transformation
    parameters between two point patterns", TPAMI 13(4), 1991, equations 38 to 43.

    Args:
        source, target: [K, 2] points, K ≥ 2.

    Returns:
        float64 [2, 3] matrix M with target ≈ M @ (x, y, 1).

    Raises:
        InvalidArgumentError: other shapes, points that are not finite, or all in one place.
    """
    source, target = _points("source", source), _points("target", target)
    if source.shape != target.shape:
        raise InvalidArgumentError(
            f"{len(source)} source points and {len(target)} target points; expected as many"
        )
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    variance = (centred**2).sum() / len(source)
    if variance < 1e-12:
        raise InvalidArgumentError("all points lie in one place; they give no direction")
    covariance = (target - target_mean).T @ centred / len(source)
    u, singular, vt = np.linalg.svd(covariance)
    sign = np.array([1.0, 1.0 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1.0])
    rotation = (u * sign) @ vt
    scale = (singular * sign).sum() / variance
    linear = scale * rotation
    return np.column_stack([linear, target_mean - linear @ source_mean])


def warp(images: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear warp of uint8 [N, H, W, C] to [N, height, width, C].

    Args:
        matrix: [2, 3], from image to output coordinates.
        size: width and height of the output.

    What lies outside of an image counts as 0. The arithmetic is float64, rounded to nearest
    even, so the result does not depend on the machine.
    """
    linear = np.linalg.inv(matrix[:, :2])
    x, y = np.meshgrid(np.arange(size[0], dtype=np.float64), np.arange(size[1], dtype=np.float64))
    x, y = x - matrix[0, 2], y - matrix[1, 2]
    x, y = linear[0, 0] * x + linear[0, 1] * y, linear[1, 0] * x + linear[1, 1] * y
    # Far outside everything is 0; the bound keeps the integers below in range.
    height, width = images.shape[1:3]
    x, y = np.clip(x, -2, width + 1), np.clip(y, -2, height + 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    dx, dy = x - left, y - top
    output = np.zeros((len(images), size[1], size[0], images.shape[3]))
    for row, row_weight in ((top, 1 - dy), (top + 1, dy)):
        for column, column_weight in ((left, 1 - dx), (left + 1, dx)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = np.where(inside, row_weight * column_weight, 0.0)
            pixels = images[:, row.clip(0, height - 1), column.clip(0, width - 1)]
            output += pixels * weight[..., None]
    return np.rint(output).astype(np.uint8)


def align(
    image: np.ndarray,
    landmarks: np.ndarray,
    size: tuple[int, int] = ARCFACE_SIZE,
    template: Points = ARCFACE_LANDMARKS,
) -> np.ndarray:
    """The crop of a face, its landmarks laid onto the template.

    Args:
        image: uint8 RGB [H, W, 3].
        landmarks: [5, 2] in image pixels: the person's right eye, left eye, nose tip, right and
            left corner of the mouth.
        size: width and height of the crop.
        template: where in the crop the landmarks should lie.

    Returns:
        uint8 RGB [height, width, 3]; 0 where the crop reaches over the image's border.

    Raises:
        InvalidArgumentError: another shape or dtype, or landmarks that are not finite.
    """
    check_image(image)
    matrix = similarity_transform(landmarks, np.asarray(template))
    crop: np.ndarray = warp(image[None], matrix, size)[0]
    return crop


def crops_for_model(crops: np.ndarray, metadata: Metadata) -> np.ndarray:
    """Crops in ArcFace's 112×112 alignment, as the network wants them.

    The same crops where the network uses that alignment; warped by the similarity between the
    two templates where it has another; resized where it has none.

    Args:
        crops: uint8 RGB [N, 112, 112, 3].

    Returns:
        uint8 RGB [N, H, W, 3] of the network's input size.

    Raises:
        InvalidArgumentError: crops of another size or dtype, or a network that takes no crops.
    """
    check_crops(crops)
    if crops.shape[1:3] != ARCFACE_SIZE[::-1]:
        raise InvalidArgumentError(
            f"crops are {crops.shape[2]}x{crops.shape[1]}; expected 112x112, ArcFace alignment"
        )
    size = metadata.input_size
    if 0 in size:
        raise InvalidArgumentError("the network has no input size, so it takes no face crops")
    arcface = np.asarray(ARCFACE_LANDMARKS)
    if metadata.landmarks is not None:
        template = np.asarray(metadata.landmarks)
        if size == ARCFACE_SIZE and np.abs(template - arcface).max() < 0.01:
            return crops
        matrix = similarity_transform(arcface, template)
    elif size == ARCFACE_SIZE:
        return crops
    else:
        scale = np.divide(size, ARCFACE_SIZE)
        matrix = np.column_stack([np.diag(scale), (scale - 1) / 2])
    return warp(crops, matrix, size)


def _points(name: str, points: np.ndarray) -> np.ndarray:
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 2:
        raise InvalidArgumentError(f"{name} points have shape {array.shape}; expected [K, 2]")
    if not np.isfinite(array).all():
        raise InvalidArgumentError(f"{name} points are not all finite")
    return array
