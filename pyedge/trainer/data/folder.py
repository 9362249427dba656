"""Folders of aligned face crops: who is in each image, and who is kept out of training."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyedge.errors import InvalidArgumentError, InvalidImageError
from pyedge.evaluation import identity_of
from pyedge.images import SUFFIXES, load_image


@dataclass(frozen=True, eq=False)
class FaceFolder:
    """Images and their classes. Class i is `names[i]`; names are in code-point order.

    Attributes:
        names: of the identities, without doubles.
        paths: of the images, by name of the identity, then by file name.
        labels: int64 [len(paths)], the class of each image.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray

    @classmethod
    def scan(cls, folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> FaceFolder:
        """Finds the images of one or more folders; the same name in two is one identity.

        A folder holds either a subfolder for each identity, which has its name, or the images
        themselves, named after the identity and a number (`Jane_Doe_0001.jpg`).

        Raises:
            InvalidArgumentError: no folder, unreadable, without images, or of both forms.
        """
        if isinstance(folders, str | os.PathLike):
            folders = [folders]
        found: dict[str, list[Path]] = defaultdict(list)
        for folder in folders:
            for name, paths in _identities(Path(folder)).items():
                found[name] += paths
        if not found:
            raise InvalidArgumentError("no folder was given to take images from")
        return cls._of(found)

    def at_least(self, images: int) -> FaceFolder:
        """Only the identities with so many images.

        Raises:
            InvalidArgumentError: nobody has.
        """
        counts = np.bincount(self.labels, minlength=len(self.names))
        if counts.max(initial=0) < images:
            raise InvalidArgumentError(
                f"none of {len(self.names)} identities has {images} images; "
                f"the most is {counts.max(initial=0)}"
            )
        return self._select(counts >= images)

    def without(self, names: Collection[str]) -> FaceFolder:
        """All identities but these, which need not be here.

        Raises:
            InvalidArgumentError: nobody is left.
        """
        keep = np.array([name not in names for name in self.names], bool)
        if not keep.any():
            raise InvalidArgumentError(f"all of {len(self.names)} identities are excluded")
        return self._select(keep)

    def hold_out(self, share: float) -> tuple[FaceFolder, FaceFolder]:
        """Parts the identities: those to train on, and about `share` of them kept out.

        The rule looks at nothing but the name (see `held_out`): whoever is kept out stays so when
        other people are added.

        Raises:
            InvalidArgumentError: a share outside of [0, 1), or nobody left to train on.
        """
        if not 0 <= share < 1:
            raise InvalidArgumentError(f"share to hold out is {share}; expected in [0, 1)")
        out = np.array([held_out(name, share) for name in self.names], bool)
        if out.all():
            raise InvalidArgumentError(
                f"holding out {share:g} of {len(self.names)} identities leaves none to train on"
            )
        return self._select(~out), self._select(out)

    def load(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """One image, uint8 RGB [H, W, 3].

        Args:
            size: the width and height that it must have.

        Raises:
            InvalidImageError: no whole image, or another size.
        """
        path = self.paths[index]
        return check_size(load_image(path), str(path), size)

    def _select(self, keep: np.ndarray) -> FaceFolder:
        """The identities of a mask [len(names)]."""
        found: dict[str, list[Path]] = {n: [] for n, k in zip(self.names, keep, strict=True) if k}
        for path, label in zip(self.paths, self.labels, strict=True):
            if keep[label]:
                found[self.names[label]].append(path)
        return self._of(found)

    @classmethod
    def _of(cls, found: dict[str, list[Path]]) -> FaceFolder:
        names = sorted(found)
        paths = [sorted(found[name], key=lambda p: (p.name, str(p))) for name in names]
        labels = np.repeat(np.arange(len(names)), [len(p) for p in paths]).astype(np.int64)
        return cls(tuple(names), tuple(path for group in paths for path in group), labels)


def held_out(name: str, share: float) -> bool:
    """Whether an identity is kept out: SHA-256 of its name, as a fraction of 2²⁵⁶, < share."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def check_size(image: np.ndarray, name: str, size: tuple[int, int] | None) -> np.ndarray:
    """The image, if it has that width and height; `name` is for the message."""
    height, width = image.shape[:2]
    if size is not None and (width, height) != size:
        raise InvalidImageError(
            f"{name}: {width}x{height} pixels; expected aligned crops of {size[0]}x{size[1]}"
        )
    return image


def _identities(folder: Path) -> dict[str, list[Path]]:
    """The images of each identity in one folder of either form."""
    entries = _entries(folder)
    images = _images(entries)
    people = {
        entry.name: _images(_entries(Path(entry.path))) for entry in entries if entry.is_dir()
    }
    people = {name: paths for name, paths in people.items() if paths}
    if images and people:
        raise InvalidArgumentError(
            f"{folder}: has images itself ({images[0].name}) and in subfolders "
            f"({min(people)}); expected one or the other"
        )
    if not images and not people:
        looked = f"looked for {' '.join(sorted(SUFFIXES))}"
        if any(entry.name.endswith(".tar") for entry in entries):
            looked = "`pyedge pack index` makes its tar files a set"
        raise InvalidArgumentError(
            f"{folder}: no images in this folder or its subfolders ({looked})"
        )
    for path in images:
        people.setdefault(identity_of(path.name), []).append(path)
    return people


def _images(entries: list[os.DirEntry[str]]) -> list[Path]:
    """The image files; the folder has told already what is a file, which saves asking for each."""
    return [
        Path(entry.path)
        for entry in entries
        if Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file()
    ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    if not folder.is_dir():
        raise InvalidArgumentError(f"{folder}: not a folder")
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise InvalidArgumentError(f"{folder}: cannot be read: {error.strerror}") from error
