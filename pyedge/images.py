"""Images from files: decoded whole or refused, always uint8 RGB [H, W, 3]."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyedge.errors import InvalidArgumentError, InvalidImageError
from pyedge.files import write_atomically

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 50_000_000
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm"})
# What Pillow may try: of its other formats some start programs (EPS) and libtiff prints.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM")
_FILLER = bytes((73 * i + 151) % 251 for i in range(256))  # without a marker's 0xFF
_ORIENTATION_TAG = 0x0112
_strict_lock = threading.Lock()


def load_image(source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file, or its bytes, to uint8 RGB [H, W, 3].

    The EXIF orientation is applied; greyscale, palette, CMYK and 16-bit images are converted;
    transparent ones are laid over white; of several frames the first is taken. A file cut short
    is refused, a JPEG also with an end marker put behind the cut, although a decoder would fill
    the rest with grey; bytes after the end are ignored. (Three things are not seen in a JPEG:
    bytes altered within a scan, which carries no checksum; the refinements that a progressive
    one was stripped of between two scans; and a cut exactly at a restart marker, with an end
    marker put there.)

    Raises:
        InvalidImageError: not an image, cut short, corrupt, or of more than `max_pixels`,
            which is checked before any pixel is decoded.
    """
    name, data = _read(source)
    from PIL import Image, UnidentifiedImageError

    try:
        image = _decode(data, name, max_pixels)
        return np.ascontiguousarray(_to_rgb(_upright(image), name))
    except (InvalidImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        known = " ".join(_FORMATS)
        raise InvalidImageError(f"{name}: not an image ({known})") from error
    except Image.DecompressionBombError as error:
        raise InvalidImageError(f"{name}: more pixels than the cap of {max_pixels}") from error
    except Exception as error:  # decoders of untrusted bytes raise whatever they meet
        raise InvalidImageError(f"{name}: cannot be decoded whole: {error}") from error


def list_images(directory: str | os.PathLike[str]) -> list[Path]:
    """The image files of a folder (not of folders within), by suffix, sorted by name.

    Raises:
        InvalidArgumentError: not a folder, unreadable, or without images.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise InvalidArgumentError(f"{directory}: not a folder")
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as error:
        raise InvalidArgumentError(f"{directory}: cannot be read: {error.strerror}") from error
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise InvalidArgumentError(f"{directory}: no images in this folder (looked for {kinds})")
    return found


def save_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes uint8 RGB [H, W, 3] in the format of the path's suffix, whole or not at all.

    Raises:
        InvalidArgumentError: another shape or dtype, or a suffix of no known format.
    """
    check_image(image)
    from PIL import Image

    file_format = Image.registered_extensions().get(Path(path).suffix.lower())
    if file_format not in _FORMATS:
        raise InvalidArgumentError(f"{path}: no image format has this suffix; .png and .jpg do")
    buffer = io.BytesIO()
    quality = {"quality": 92} if file_format in ("JPEG", "WEBP") else {}
    Image.fromarray(image).save(buffer, file_format, **quality)
    write_atomically(path, buffer.getvalue())


def check_image(image: np.ndarray) -> None:
    """Raises InvalidArgumentError unless `image` is uint8 [H, W, 3] with H, W ≥ 1."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise InvalidArgumentError(f"image is {kind}; expected a uint8 array [H, W, 3], RGB")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InvalidArgumentError(f"image has shape {image.shape}; expected [H, W, 3], RGB")


def _read(source: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    """The name for messages, and the bytes."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "image bytes", bytes(source)
    try:
        return str(source), Path(source).read_bytes()
    except OSError as error:
        raise InvalidImageError(f"{source}: cannot be read: {error.strerror}") from error


def _decode(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """The image as it is stored, all of it."""
    is_jpeg = data[:2] == b"\xff\xd8"
    end = _jpeg_end(data) if is_jpeg else -1
    if is_jpeg and end == -1:
        raise InvalidImageError(f"{name}: truncated JPEG: its end marker is missing")
    if data[:8] == b"\x89PNG\r\n\x1a\n" and not _png_ends(data):
        raise InvalidImageError(f"{name}: truncated PNG: its end chunk is missing")
    if data[:6] in (b"GIF87a", b"GIF89a") and not _gif_ends(data):
        raise InvalidImageError(f"{name}: truncated GIF: its trailer is missing")
    if (size := _stated_size(data)) > len(data):
        raise InvalidImageError(
            f"{name}: truncated image: {len(data)} bytes of the {size} that its header states"
        )
    image = _pillow_image(data, name, max_pixels)
    if is_jpeg:
        # What follows a whole scan is skipped; a short one takes it for its missing blocks, which
        # the decoder would otherwise fill with grey without a word.
        longer = _pillow_image(data[:end] + _FILLER + data[end:], name, max_pixels)
        if image.tobytes() != longer.tobytes():
            raise InvalidImageError(f"{name}: truncated JPEG: its scan ends early")
    return image


def _pillow_image(data: bytes, name: str, max_pixels: int) -> Image.Image:
    from PIL import Image

    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > max_pixels:
        raise InvalidImageError(
            f"{name}: {image.width}x{image.height} pixels are more than the cap of "
            f"{max_pixels} (max_pixels)"
        )
    with _strict_decoding():
        image.load()
    return image


def _jpeg_end(data: bytes) -> int:
    """Walks the markers of a JPEG (ITU T.81, annex B) to its end-of-image marker; -1: none.

    Looking only at the last bytes would refuse files with something appended, and accept cut
    ones whose thumbnail or comment happens to end there.
    """
    position = 2
    while (position := data.find(b"\xff", position)) != -1:
        marker = data[position + 1] if position + 1 < len(data) else None
        if marker is None:
            return -1
        if marker == 0xD9:
            return position
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffed byte, no payload
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return -1


def _png_ends(data: bytes) -> bool:
    """Whether the chunks of a PNG (ISO/IEC 15948) lead to a whole end chunk."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IEND":
            return data[position : position + 12] == b"\0\0\0\0IEND\xae\x42\x60\x82"
        position += 12 + length
    return False


def _gif_ends(data: bytes) -> bool:
    """Whether the blocks of a GIF (GIF89a specification) lead to its trailer."""

    def colors(at: int) -> int:
        """Bytes of the colour table that the packed field there announces."""
        packed = data[at] if at < len(data) else 0
        return 3 << (packed % 8 + 1) if packed & 0x80 else 0

    position = 13 + colors(10)
    while position < len(data):
        kind = data[position]
        if kind == 0x3B:
            return True
        if kind == 0x2C:  # an image: descriptor, colours, code size
            position += 11 + colors(position + 9)
        elif kind == 0x21:  # an extension and its label
            position += 2
        else:  # decoders pass over stray bytes
            position += 1
            continue
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    return False


def _stated_size(data: bytes) -> int:
    """How long a BMP or WebP says that it is; 0 for another file."""
    if data[:2] == b"BM":
        return int.from_bytes(data[2:6], "little")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return int.from_bytes(data[4:8], "little") + 8
    return 0


@contextlib.contextmanager
def _strict_decoding() -> Iterator[None]:
    """Makes Pillow refuse truncated files even if the program switched that off for itself."""
    from PIL import ImageFile

    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _strict_lock:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; an unreadable EXIF block counts as none."""
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return image
    transpose = Image.Transpose
    operation = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_270,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_90,
    }.get(orientation)
    return image if operation is None else image.transpose(operation)


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    """Any Pillow mode to uint8 [H, W, 3]."""
    from PIL import Image

    if image.mode == "F":
        raise InvalidImageError(f"{name}: floating-point pixels; expected 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit greyscale, whatever it was widened to
        high = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
