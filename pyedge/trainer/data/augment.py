"""Augmentation of aligned face crops: small functions from an image to an image.

Images are uint8 RGB [H, W, 3]; none is changed in place. Randomness comes from the generator that
is handed in, so a sample's augmentation follows from (seed, epoch, index) alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageDraw

from pyedge.errors import InvalidArgumentError
from pyedge.metadata import ARCFACE_SIZE
from pyedge.trainer.data.sampler import Purpose, generator

# The outline of a medical mask over a face aligned to ARCFACE_LANDMARKS, in shares of its crop's
# side: from the bridge of the nose over the person's left cheek and the chin to the right cheek.
_MASK_X = (56, 78, 98, 97, 85, 70, 56, 42, 27, 15, 14, 34)
_MASK_Y = (66, 68, 73, 92, 106, 114, 117, 114, 106, 92, 73, 68)
_MASK = np.column_stack([_MASK_X, _MASK_Y]) / ARCFACE_SIZE
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image, in this order: mask, flip, crop, colour, cutout.

    Attributes:
        flip: probability of a mirror image.
        shift: the crop moves by up to this share of its side, each way.
        zoom: it shows up to this share more or less of the side, 0 to below 1.
        mask: probability of a mask over mouth and nose.
        brightness: up to this share of the full range is added or taken away.
        contrast: distances from the mean shrink or grow by up to this share.
        grayscale: probability of no colours.
        cutout: probability that a rectangle is erased.
        cutout_area: the least and most of the image that it covers.
    """

    flip: float = 0.5
    shift: float = 0.0
    zoom: float = 0.0
    mask: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    grayscale: float = 0.0
    cutout: float = 0.0
    cutout_area: tuple[float, float] = (0.02, 0.2)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "cutout_area" and not 0 <= value <= 1:
                raise InvalidArgumentError(f"{field.name} is {value}; expected 0 to 1")
        if self.zoom == 1:
            raise InvalidArgumentError("zoom is 1; expected below 1, or nothing is left to see")
        least, most = self.cutout_area
        if not 0 < least <= most < 1:
            raise InvalidArgumentError(
                f"cutout_area is {list(self.cutout_area)}; expected two rising shares in (0, 1)"
            )

    def __call__(self, image: np.ndarray, seed: int, epoch: int, index: int) -> np.ndarray:
        """The image as sample `index` shows it in an epoch."""
        rng = generator(Purpose.AUGMENTATION, seed, epoch, index)
        if rng.random() < self.mask:
            image = face_mask(image, rng)
        if rng.random() < self.flip:
            image = flip(image)
        if self.shift or self.zoom:
            image = crop(image, rng, self.shift, self.zoom)
        if self.brightness or self.contrast:
            image = jitter(image, rng, self.brightness, self.contrast)
        if rng.random() < self.grayscale:
            image = grayscale(image)
        if rng.random() < self.cutout:
            image = cutout(image, rng, self.cutout_area)
        return image


NO_AUGMENTATION = Augmentation(flip=0.0)


def flip(image: np.ndarray) -> np.ndarray:
    """The mirror image."""
    return image[:, ::-1]


def crop(image: np.ndarray, rng: np.random.Generator, shift: float, zoom: float) -> np.ndarray:
    """Another part of the image at the same size, bilinear; what lies outside is black."""
    height, width = image.shape[:2]
    scale = 1 + rng.uniform(-zoom, zoom)
    x, y = rng.uniform(-shift, shift, 2) * (width, height)
    left = x + width * (1 - scale) / 2
    top = y + height * (1 - scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    moved = Image.fromarray(image).transform(
        (width, height), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    )
    return np.asarray(moved)


def jitter(
    image: np.ndarray, rng: np.random.Generator, brightness: float, contrast: float
) -> np.ndarray:
    """Brightness and contrast, the same for every pixel and channel."""
    added = 255 * rng.uniform(-brightness, brightness)
    factor = 1 + rng.uniform(-contrast, contrast)
    mean = float(image.mean())
    curve = (np.arange(256) - mean) * factor + mean + added
    return np.rint(curve).clip(0, 255).astype(np.uint8)[image]


def grayscale(image: np.ndarray) -> np.ndarray:
    """The luma in all three channels."""
    luma = np.rint(image @ _LUMA).clip(0, 255).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)


def cutout(image: np.ndarray, rng: np.random.Generator, area: tuple[float, float]) -> np.ndarray:
    """Noise over a rectangle of that share of the image (Zhong et al., Random Erasing, AAAI 2020).

    Its sides are to each other as 0.3 to 3.3, as there; one that would not fit is cut to fit.
    """
    height, width = image.shape[:2]
    share = rng.uniform(*area)
    ratio = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
    h = min(height, max(1, round(math.sqrt(share * ratio) * height)))
    w = min(width, max(1, round(math.sqrt(share / ratio) * width)))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    erased = image.copy()
    erased[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
    return erased


def face_mask(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask of one colour over mouth, nose and chin of a face aligned to ARCFACE_LANDMARKS."""
    height, width = image.shape[:2]
    outline = _MASK + rng.normal(0, 0.012, _MASK.shape)
    outline[:, 1] += rng.uniform(-0.04, 0.06) * (outline[:, 1] < 0.7)  # how high it is worn
    color = tuple(int(c) for c in rng.integers(0, 256, 3))
    drawn = Image.fromarray(image)
    ImageDraw.Draw(drawn).polygon([(x * width, y * height) for x, y in outline], fill=color)
    return np.asarray(drawn)
