"""Face recognition networks in INT8 at the edge.

`Session` runs a converted model, `features` tells what this CPU and build can do. Conversion is in
`pyedge.converters`, quantization in `pyedge.calibration`; neither is imported from here.
"""

from pyedge.errors import (
    CalibrationError,
    InvalidArgumentError,
    InvalidImageError,
    InvalidModelError,
    PyEdgeError,
    UnsupportedError,
)
from pyedge.metadata import Metadata, Preprocessing
from pyedge.session import Session, TensorInfo, features, set_thread_budget

__version__ = "0.1.0"

__all__ = [
    "CalibrationError",
    "InvalidArgumentError",
    "InvalidImageError",
    "InvalidModelError",
    "Metadata",
    "Preprocessing",
    "PyEdgeError",
    "Session",
    "TensorInfo",
    "UnsupportedError",
    "__version__",
    "features",
    "set_thread_budget",
]
