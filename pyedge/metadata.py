"""How a network wants its pixels: colour order, size, mean and scale; and whose features it gives.

A converted model carries this, so that the file is enough to use it right. For a conversion it is
given as a small TOML file beside the ONNX model:

    color = "rgb"                      # or "bgr"
    input_size = [112, 112]            # width, height
    mean = [123.675, 116.28, 103.53]   # or one number; pixels are 0…255
    std = [58.395, 57.12, 57.375]      # or `scale`, by which (pixel - mean) is multiplied
    landmarks = "arcface"              # or five points [x, y] in input pixels
    model_name = "mobilefacenet"
    feature_space = "mobilefacenet-1"
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from pyedge.errors import InvalidArgumentError

Color = Literal["none", "rgb", "bgr"]
Triple = tuple[float, float, float]
Points = tuple[tuple[float, float], ...]

# The five-point template of ArcFace's 112×112 crops (Deng et al., CVPR 2019), in pixels: the
# person's right eye, left eye, nose tip, right and left corner of the mouth. Pixel centres have
# whole-number coordinates.
ARCFACE_LANDMARKS: Points = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
ARCFACE_SIZE = (112, 112)

# A model file keeps these numbers as float32 and int32.
_MOST, _LEAST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
_LARGEST_SIZE = 2**31 - 1
# Points count as on a line where they spread less than this share of their length beside it.
_SLIMMEST = 1e-3


@dataclass
class Preprocessing:
    """Pixels to tensor: tensor = (pixel - mean) * scale, pixels 0…255.

    Attributes:
        color: channel order the network takes; "none" where its input is no image.
        input_size: width and height in pixels; 0 where the network takes any.
        mean, scale: for each channel, in the order the network takes.
    """

    color: Color = "none"
    input_size: tuple[int, int] = (0, 0)
    mean: Triple = (0.0, 0.0, 0.0)
    scale: Triple = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.color not in ("none", "rgb", "bgr"):
            raise InvalidArgumentError(f'color is {self.color!r}; expected "rgb", "bgr" or "none"')
        self.input_size = _size(self.input_size)
        self.mean = _triple("mean", self.mean)
        self.scale = _triple("scale", self.scale)
        if 0.0 in self.scale:
            raise InvalidArgumentError("scale is 0; expected the factor after the subtraction")
        for mean, scale in zip(self.mean, self.scale, strict=True):
            if not _LEAST <= abs(scale) <= _MOST / (255 + abs(mean)):
                raise InvalidArgumentError(
                    f"mean {mean:g} and scale {scale:g} take pixels out of float32's range"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds it from plain values; see the module for the keys.

        Raises:
            InvalidArgumentError: an unknown key, or a value of another kind or range.
        """
        known = {f.name for f in fields(cls)} | {"std"}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidArgumentError(
                f"unknown key {', '.join(map(repr, unknown))}; expected {', '.join(sorted(known))}"
            )
        given = dict(values)
        if "std" in given:
            if "scale" in given:
                raise InvalidArgumentError("std and scale are both given; expected one of them")
            std = _triple("std", given.pop("std"))
            if min(std) < _LEAST:
                raise InvalidArgumentError(
                    f"std is {list(std)}; expected numbers above 0, in float32's range"
                )
            given["scale"] = tuple(1.0 / s for s in std)
        return cls(**given)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Reads it from a TOML file.

        Raises:
            InvalidArgumentError: the file cannot be read, is no TOML, or `from_dict` refuses it.
        """
        import tomllib  # here, because it costs a tenth of the import of pyedge

        try:
            with Path(path).open("rb") as file:
                return cls.from_dict(tomllib.load(file))
        except OSError as error:
            raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidArgumentError(f"{path}: not TOML: {error}") from error
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{path}: {error}") from error

    def apply(self, crops: np.ndarray) -> np.ndarray:
        """The network's input for uint8 RGB crops [N, H, W, 3]: float32 [N, 3, H, W].

        One float32 subtraction and one multiplication for each pixel, so that every
        implementation can give the same bits.

        Raises:
            InvalidArgumentError: another dtype or shape, or a network without images.
        """
        if self.color == "none":
            raise InvalidArgumentError('color is "none": this network takes no images')
        check_crops(crops)
        width, height = self.input_size
        if (width, height) != (0, 0) and crops.shape[1:3] != (height, width):
            raise InvalidArgumentError(
                f"crops are {crops.shape[2]}x{crops.shape[1]}; the network takes {width}x{height}"
            )
        channels = crops if self.color == "rgb" else crops[..., ::-1]
        mean, scale = np.array(self.mean, np.float32), np.array(self.scale, np.float32)
        tensor = (channels.astype(np.float32) - mean) * scale
        return np.ascontiguousarray(tensor.transpose(0, 3, 1, 2))


@dataclass
class Metadata(Preprocessing):
    """Preprocessing, and what the features are.

    Attributes:
        embedding_size: length of the feature; 0 where the network gives none.
        landmarks: the five points (x, y) in input pixels that faces are aligned to, in the
            order of `ARCFACE_LANDMARKS`; None where faces are not aligned by points.
        model_name: for people.
        feature_space: features are comparable only where this is equal.
        producer: the program that wrote the file.
    """

    embedding_size: int = 0
    landmarks: Points | None = None
    model_name: str = ""
    feature_space: str = ""
    producer: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.embedding_size
        if not _is_whole(size) or not 0 <= size <= _LARGEST_SIZE:
            raise InvalidArgumentError(
                f"embedding_size is {size!r}; expected a whole number from 0 to {_LARGEST_SIZE}"
            )
        for name in ("model_name", "feature_space", "producer"):
            if not isinstance(getattr(self, name), str):
                raise InvalidArgumentError(f"{name} is {getattr(self, name)!r}; expected a text")
        self.landmarks = self._points(self.landmarks)

    def _points(self, value: Any) -> Points | None:
        if value is None:
            return None
        if isinstance(value, str) and value == "arcface":
            if self.input_size != ARCFACE_SIZE:
                raise InvalidArgumentError(
                    'landmarks = "arcface" needs input_size [112, 112]; '
                    "for another size give five points [x, y]"
                )
            return ARCFACE_LANDMARKS
        if not _is_list(value, 5) or not all(
            _is_list(point, 2) and all(map(_is_number, point)) for point in value
        ):
            raise InvalidArgumentError(
                f'landmarks is {value!r}; expected five points [x, y] or "arcface"'
            )
        points = tuple((float(x), float(y)) for x, y in value)
        length, breadth = np.linalg.svd(np.array(points) - np.mean(points, axis=0))[1]
        if breadth <= _SLIMMEST * length:
            raise InvalidArgumentError(
                f"landmarks is {value!r}; expected five points that are not in one place or line"
            )
        return points


def check_crops(crops: np.ndarray) -> None:
    """Raises InvalidArgumentError unless `crops` is uint8 [N, H, W, 3] with H, W ≥ 1."""
    if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8:
        kind = crops.dtype if isinstance(crops, np.ndarray) else type(crops).__name__
        raise InvalidArgumentError(f"crops are {kind}; expected uint8 [N, H, W, 3], RGB")
    if crops.ndim != 4 or crops.shape[3] != 3 or 0 in crops.shape[1:]:
        raise InvalidArgumentError(f"crops have shape {crops.shape}; expected [N, H, W, 3], RGB")


def _is_number(value: Any) -> bool:
    """Whether it is a number that float32 can hold, within rounding."""
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and bool(-_MOST <= value <= _MOST)
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_list(value: Any, length: int) -> bool:
    is_list = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
    return is_list and len(value) == length


def _triple(name: str, value: Any) -> Triple:
    values = [value] * 3 if _is_number(value) else value
    if not _is_list(values, 3) or not all(map(_is_number, values)):
        raise InvalidArgumentError(
            f"{name} is {value!r}; expected a number that float32 can hold, or three for the "
            "channels"
        )
    return (float(values[0]), float(values[1]), float(values[2]))


def _size(value: Any) -> tuple[int, int]:
    values = [value, value] if _is_whole(value) else value
    whole = _is_list(values, 2) and all(map(_is_whole, values))
    if not whole or not all(0 <= side <= 65535 for side in values):
        raise InvalidArgumentError(f"input_size is {value!r}; expected [width, height] in pixels")
    return (int(values[0]), int(values[1]))
