"""Programs of 64-bit ARM under QEMU's user emulation: what they need, and how they are counted."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SYSROOT = Path("/usr/aarch64-linux-gnu")  # of Debian's cross compiler
NCNN, NUMPY, PNNX = "ncnn==1.0.20261020", "numpy==2.4.6", "pnnx==20261020"


def _call(command: Sequence[str | Path], **options: object) -> str:
    """The output of a command, which is shown where it fails."""
    done = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in command], capture_output=True, text=True, **options
    )
    if done.returncode:
        text = done.stdout[-4000:] + done.stderr[-4000:]
        raise SystemExit(f"{' '.join(str(word) for word in command)}\n{text}")
    return done.stdout


def build_plugin(cache: Path) -> Path:
    """The plugin that counts, for the QEMU of this machine."""
    plugin = cache / "insn_count.so"
    _call(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, HERE / "insn_count.c"])
    return plugin


def build_program(cache: Path) -> Path:
    """tests/cpp/run_model.cc of this working tree, cross-compiled."""
    build = cache / "build"
    toolchain = ROOT / "cmake" / "aarch64-linux-gnu.cmake"
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DPYEDGE_PYTHON=OFF", "-DPYEDGE_TESTS=ON"]
    _call(["cmake", "-S", ROOT, "-B", build, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", *options])
    _call(["cmake", "--build", build, "--target", "run_model", "-j", str(os.cpu_count() or 1)])
    return build / "tests" / "cpp" / "run_model"


def fetch_ncnn(cache: Path) -> None:
    """A Python for 64-bit ARM with ncnn (root, site), and pnnx for this machine (pnnx)."""
    if not (cache / "root").exists():
        _fetch_python(cache)
    arm = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
    for glibc in (28, 27, 24, 17):
        arm += ["--platform", f"manylinux_2_{glibc}_aarch64"]
    for folder, packages, options in (("site", (NCNN, NUMPY), arm), ("pnnx", (PNNX,), [])):
        if (cache / folder).exists():
            continue
        with tempfile.TemporaryDirectory(dir=cache) as wheels:
            download = ["python3", "-m", "pip", "download", "-q", "--no-deps", "-d", wheels]
            _call([*download, "--only-binary=:all:", *options, *packages])
            for wheel in Path(wheels).glob("*.whl"):
                zipfile.ZipFile(wheel).extractall(Path(wheels) / "unpacked")
            (Path(wheels) / "unpacked").rename(cache / folder)
    (cache / "pnnx" / "pnnx" / "pnnx").chmod(0o755)


def _fetch_python(cache: Path) -> None:
    """Debian's, by an apt with a state of its own, which leaves the machine's alone."""
    with tempfile.TemporaryDirectory(dir=cache) as name:
        state = Path(name)
        for folder in ("lists/partial", "cache/archives/partial", "unpacked"):
            (state / folder).mkdir(parents=True)
        (state / "status").touch()
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "",
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
        }
        apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in settings.items())]
        _call([*apt, "update"])
        install = ["install", "-y", "--no-install-recommends", "--download-only"]
        _call([*apt, *install, "python3.11", "libstdc++6", "libgomp1"])
        for package in (state / "cache" / "archives").glob("*.deb"):
            _call(["dpkg-deb", "-x", package, state / "unpacked"])
        (state / "unpacked").rename(cache / "root")


def python(cache: Path, cpu: str, plugin: str | None = None) -> list[str]:
    """The start of a command line of the emulated Python."""
    root = cache / "root"
    libraries = f"{root}/usr/lib/aarch64-linux-gnu:{root}/lib/aarch64-linux-gnu"
    words = ["qemu-aarch64", "-cpu", cpu, "-L", str(root)]
    for setting in (
        f"LD_LIBRARY_PATH={libraries}",
        f"PYTHONPATH={cache / 'site'}",
        "PYTHONHASHSEED=0",
        "PYTHONDONTWRITEBYTECODE=1",
    ):
        words += ["-E", setting]
    return [*words, *(["-plugin", plugin] if plugin else []), str(root / "usr/bin/python3.11")]


def per_inference(plugin: Path, command: Callable[[str, int], Sequence[str]]) -> Counter[str]:
    """Instructions by function of the last of three inferences.

    Args:
        plugin: of build_plugin.
        command: from what -plugin wants and the number of inferences, each followed by getppid().
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        _call(command(f"{plugin},out={out}", 3))
        counts: Counter[str] = Counter()
        for line in out.read_text().splitlines():
            number, name = line.split(" ", 1)
            counts[name] += int(number)
    return counts
