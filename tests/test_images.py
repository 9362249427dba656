"""Images and files: whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from pyedge.errors import InvalidArgumentError, InvalidImageError, PyEdgeError
from pyedge.files import write_atomically
from pyedge.images import list_images, load_image, save_image


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours with some noise: every part of it costs a coder bits."""
    y, x = np.mgrid[:height, :width]
    planes = [4 * x % 256, 5 * y % 256, 3 * (x + y) % 256]
    noise = np.random.default_rng(0).integers(0, 12, (height, width, 3))
    return (np.stack(planes, axis=-1) * 0.9 + noise).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_lossless_round_trip(tmp_path: Path) -> None:
    for suffix in (".png", ".bmp", ".ppm"):
        save_image(tmp_path / f"a{suffix}", photo())
        loaded = load_image(tmp_path / f"a{suffix}")
        assert loaded.flags.c_contiguous
        np.testing.assert_array_equal(loaded, photo())
    save_image(tmp_path / "a.jpg", photo())
    assert load_image((tmp_path / "a.jpg").read_bytes()).shape == photo().shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = photo(16, 24)
    rows_columns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(rows_columns[orientation])
    np.testing.assert_array_equal(load_image(encoded(stored, "PNG", exif=exif)), upright)


def test_modes() -> None:
    grey = photo()[..., 0]
    repeated = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(load_image(encoded(grey, "PNG")), repeated)
    deep = Image.fromarray(grey.astype(np.uint16) << 8 | 7)
    np.testing.assert_array_equal(load_image(encoded(deep, "PNG")), repeated)
    np.testing.assert_array_equal(load_image(encoded(deep, "PPM")), repeated)
    palette = Image.fromarray(photo()).quantize(16)
    np.testing.assert_array_equal(load_image(encoded(palette, "PNG")), palette.convert("RGB"))
    bilevel = Image.fromarray(grey).convert("1")
    np.testing.assert_array_equal(load_image(encoded(bilevel, "PNG")), bilevel.convert("RGB"))
    cmyk = Image.fromarray(photo()).convert("CMYK")
    difference = load_image(encoded(cmyk, "JPEG", quality=95)).astype(int) - photo()
    assert np.abs(difference).mean() < 8
    with pytest.raises(InvalidImageError, match="floating-point"):
        load_image(encoded(Image.fromarray(grey.astype(np.float32)), "PPM"))


def test_transparency_lies_over_white() -> None:
    rgba = np.dstack([photo(), np.zeros((48, 64), np.uint8)])
    rgba[:24, :, 3] = 255
    loaded = load_image(encoded(rgba, "PNG"))
    np.testing.assert_array_equal(loaded[:24], photo()[:24])
    assert (loaded[24:] == 255).all()
    transparent = Image.fromarray(photo()).quantize(4)
    file = encoded(transparent, "PNG", transparency=0)
    assert (load_image(file)[np.asarray(transparent) == 0] == 255).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("forgiving", [False, True])
def test_no_cut_jpeg_is_decoded(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], forgiving: bool
) -> None:
    """At whatever byte it is cut, and even where the program told Pillow to fill the rest."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", forgiving)
    whole = encoded(photo(), "JPEG", quality=90, **options)
    assert load_image(whole).shape == (48, 64, 3)
    for length in range(len(whole)):
        with pytest.raises(InvalidImageError):
            load_image(whole[:length])
    assert forgiving == ImageFile.LOAD_TRUNCATED_IMAGES


def test_end_marker_behind_a_cut_does_not_help() -> None:
    """What the decoder would fill with grey is seen, but for its last bits."""
    for lower_half in (None, 128, 255):
        image = photo()
        if lower_half is not None:
            image[24:] = lower_half
        whole = encoded(image, "JPEG", quality=90)
        start, end = whole.find(b"\xff\xda") + 14, len(whole) - 2
        for length in range(start, end - 8):
            with pytest.raises(InvalidImageError, match=r"scan ends early|decoded whole"):
                load_image(whole[:length] + b"\xff\xd9")


def test_end_marker_elsewhere_does_not_count() -> None:
    """One in a comment or in a thumbnail is not the image's; bytes after the image are allowed."""
    comment = encoded(photo(), "JPEG", comment=b"\xff\xd9 ends here \xff\xd9")
    assert load_image(comment + b"appended \xff\x00").shape == (48, 64, 3)
    with pytest.raises(InvalidImageError, match="end marker"):
        load_image(comment[:-2])


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "PPM", "GIF"])
def test_cut_file_is_refused(monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    whole = encoded(photo(), file_format)
    assert load_image(whole + b"appended").shape == (48, 64, 3)
    lengths = [int(share * len(whole)) for share in (0.0, 0.1, 0.5, 0.9)]
    for forgiving in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", forgiving)
        for length in [*lengths, *range(len(whole) - 14, len(whole))]:
            with pytest.raises(InvalidImageError, match="image bytes: "):
                load_image(whole[:length])


def test_animation_is_refused_without_its_end() -> None:
    frames = [Image.fromarray(photo()), Image.fromarray(photo()[::-1])]
    for file_format in ("GIF", "PNG", "WEBP"):
        whole = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert load_image(whole).shape == (48, 64, 3)
        for length in (len(whole) * 3 // 4, len(whole) - 1):
            with pytest.raises(InvalidImageError, match="truncated"):
                load_image(whole[:length])


def test_altered_png_is_refused() -> None:
    whole = bytearray(encoded(photo(), "PNG"))
    whole[len(whole) // 2] ^= 0x55
    with pytest.raises(InvalidImageError):
        load_image(bytes(whole))


def test_errors_name_the_file(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    for path in (text, tmp_path / "missing.png", tmp_path):
        with pytest.raises(InvalidImageError, match=path.name):
            load_image(path)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that promises much and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + checksum

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_pixel_cap_comes_before_decoding() -> None:
    with pytest.raises(InvalidImageError, match="cap of 50000000"):
        load_image(png_of_size(10_000, 5_001))
    with pytest.raises(InvalidImageError, match="cap of 50000000"):
        load_image(png_of_size(60_000, 60_000))
    with pytest.raises(InvalidImageError, match=r"64x48.*max_pixels"):
        load_image(encoded(photo(), "PNG"), max_pixels=64 * 48 - 1)
    assert load_image(encoded(photo(), "PNG"), max_pixels=64 * 48).shape == (48, 64, 3)


def test_list_images(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no images"):
        list_images(tmp_path)
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG"]
    with pytest.raises(InvalidArgumentError, match="not a folder"):
        list_images(tmp_path / "a.png")


def test_save_image_checks(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="uint8"):
        save_image(tmp_path / "a.png", photo().astype(np.float32))
    with pytest.raises(InvalidArgumentError, match="shape"):
        save_image(tmp_path / "a.png", photo()[..., 0])
    with pytest.raises(InvalidArgumentError, match="suffix"):
        save_image(tmp_path / "a.nope", photo())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_disk_full_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str
) -> None:
    path = tmp_path / "model.pye"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(PyEdgeError, match=r"model\.pye.*No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.pye"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_devices_and_folders_are_left_alone(tmp_path: Path) -> None:
    for path in (Path("/dev/full"), tmp_path):
        with pytest.raises(InvalidArgumentError, match="not a regular file"):
            write_atomically(path, b"x")
    assert Path("/dev/full").is_char_device()


def test_write_keeps_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"data"
    with pytest.raises(PyEdgeError, match="cannot be written: No such file"):
        write_atomically(tmp_path / "nowhere" / "file", b"data")
