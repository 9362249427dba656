"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A shell has what it starts in the background ignore interrupts; some tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real models and faces: PYEDGE_ASSETS, or ../shared/assets of the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "assets"
    folder = Path(os.environ.get("PYEDGE_ASSETS", default))
    if not (folder / "models").is_dir():
        pytest.skip(f"NO TEST ASSETS in {folder}: set PYEDGE_ASSETS to test the real models")
    return folder
