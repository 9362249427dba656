"""Made-up people for tests of training: each is a colour of its own, with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_faces(folder: Path, people: int, images: int) -> str:
    """Writes crops of 112×112 named after person and number; returns the folder."""
    rng = np.random.default_rng(0)
    for person in range(people):
        color = rng.integers(40, 215, 3)
        for number in range(images):
            noise = rng.integers(-40, 40, (112, 112, 3))
            pixels = np.clip(color + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"Person{person}_{number:04}.png")
    return str(folder)
