"""Conversion of trained networks: ONNX to the native file, in FP32 or INT8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyedge.errors import UnsupportedError

if TYPE_CHECKING:
    from .conversion import convert
    from .report import ConversionReport

__all__ = ["ConversionReport", "convert"]

# Packages of the extra `convert`, as they are imported; google is protobuf.
EXTRA_MODULES = ("onnx", "onnxsim", "google")


def __getattr__(name: str) -> Any:
    """`convert` needs the extra `convert`; the other modules here do not."""
    if name == "convert":
        try:
            from .conversion import convert
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package not in EXTRA_MODULES:
                raise
            raise UnsupportedError(
                f"{'protobuf' if package == 'google' else package} is not installed: "
                'pip install "pyedge[convert]"'
            ) from error
        return convert
    if name == "ConversionReport":
        from .report import ConversionReport

        return ConversionReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
