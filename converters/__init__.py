"""Conversion of trained networks: ONNX to the native file, in FP32 or INT8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversion import convert
    from .report import ConversionReport

__all__ = ["ConversionReport", "convert"]


def __getattr__(name: str) -> Any:
    """`convert` needs the extra `convert`; the other modules here do not."""
    if name == "convert":
        from .conversion import convert

        return convert
    if name == "ConversionReport":
        from .report import ConversionReport

        return ConversionReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
