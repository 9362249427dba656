"""Instructions that one inference executes on 64-bit ARM, counted under QEMU: ours and ncnn's.

The counts are exact and the same on every machine, so they say on x86 whether a change made the ARM
kernels better, and gate regressions. An instruction count is not time: loads weigh as much as
multiply-accumulates. For the inner loops see arm_mca.py.

cd tests && python benchmarks/arm_instructions.py [--ncnn] [--json FILE]
cd tests && python benchmarks/arm_instructions.py --compare benchmarks/arm_instructions.json

Needs qemu-user, a C compiler and g++-aarch64-linux-gnu; --ncnn also apt-get and pip, with which it
fetches a Python for ARM, ncnn and pnnx into the cache folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from arm import guest
from models import export, mobilefacenet
from peer_tools import ncnn_int8

import pyedge
from pyedge.converters import convert

RUN_NCNN = Path(__file__).resolve().parent / "arm" / "ncnn_run.py"
# NEON alone; with dot products; with dot products and int8 matrix products.
CPUS = ("cortex-a53", "cortex-a76", "max,sve=off")
SHAPE = (1, 3, 112, 112)
PRECISIONS = ("int8", "fp32")
NCNN_MODES = ("fp32", "fp16 storage", "fp16", "bf16", "int8", "int8 + fp16", "int8 + bf16")
BAR = 0.7  # our INT8 against the least of ncnn
Counts = dict[str, dict[str, dict[str, int]]]  # by engine, CPU and precision


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


class Models:
    """MobileFaceNet in every form, in a folder, with an input and what comes out of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self.images = rng.normal(size=(4, *SHAPE[1:])).astype(np.float32)
        self.images[:1].tofile(self.input)
        onnx.save(export(mobilefacenet(), SHAPE), self.onnx)
        self.expected = {}
        for precision in PRECISIONS:
            calibration = list(self.images[:, None]) if precision == "int8" else None
            convert(self.onnx, self.native(precision), precision, calibration)
            (y,) = pyedge.Session(self.native(precision)).run(self.images[:1])
            self.expected[precision] = y.ravel()
        if cosine(self.expected["int8"], self.expected["fp32"]) < 0.999:
            raise SystemExit("the INT8 network is not the FP32 one")

    @property
    def onnx(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def input(self) -> Path:
        return self.folder / "input.f32"

    @property
    def output(self) -> Path:
        return self.folder / "output.f32"

    def native(self, precision: str) -> Path:
        return self.folder / f"{precision}.pye"

    def ncnn(self, mode: str) -> Path:
        return self.folder / ("int8.ncnn.param" if "int8" in mode else "model.ncnn.param")

    def make_ncnn(self, cache: Path) -> None:
        """The float and the INT8 network, calibrated by ncnn's own activations."""
        pnnx = cache / "pnnx" / "pnnx" / "pnnx"
        shape = f"inputshape=[{','.join(map(str, SHAPE))}]"
        run = [pnnx, self.onnx, shape, "fp16=0"]
        subprocess.run(run, cwd=self.folder, check=True, capture_output=True)
        param = self.ncnn("fp32")
        layers = ncnn_int8.read(param, param.with_suffix(".bin"))
        blobs = ncnn_int8.quantized_inputs(layers)
        images, absmax = self.folder / "images.f32", self.folder / "absmax.json"
        self.images.tofile(images)
        job = [RUN_NCNN, "absmax", param, images, absmax, *sorted(set(blobs.values()))]
        subprocess.run([*guest.python(cache, "max,sve=off"), *map(str, job)], check=True)
        thresholds = json.loads(absmax.read_text())
        of_layers = {layer: thresholds[blob] for layer, blob in blobs.items()}
        ncnn_int8.write(layers, of_layers, self.ncnn("int8"))

    def output_of_run(self) -> np.ndarray:
        y = np.fromfile(self.output, np.float32)
        self.output.unlink()
        return y


def count_ours(models: Models, plugin: Path, program: Path, cpu: str, precision: str) -> Counter:
    def command(plugin: str, runs: int) -> list[str]:
        emulator = ["qemu-aarch64", "-cpu", cpu, "-L", str(guest.SYSROOT), "-plugin", plugin]
        files = models.native(precision), runs, models.input, models.output
        return [*emulator, str(program), *map(str, files)]

    counts = guest.per_inference(plugin, command)
    y, want = models.output_of_run(), models.expected[precision]
    # FP32 adds up in the same order too, but only INT8 promises the bytes.
    if precision == "int8" and y.tobytes() != want.tobytes():
        raise SystemExit(f"{cpu}: the INT8 network gives other bytes than on this machine")
    if cosine(y, want) < 0.99999:
        raise SystemExit(f"{cpu}, {precision}: cosine {cosine(y, want)} with the network here")
    return counts


def count_ncnn(models: Models, plugin: Path, cache: Path, cpu: str, mode: str) -> int:
    def command(plugin: str, runs: int) -> list[str]:
        job = "run", models.ncnn(mode), mode, runs, models.input, models.output
        return [*guest.python(cache, cpu, plugin), str(RUN_NCNN), *map(str, job)]

    counts = guest.per_inference(plugin, command)
    similarity = cosine(models.output_of_run(), models.expected["fp32"])
    if similarity < 0.999:
        raise SystemExit(f"{cpu}: ncnn, {mode}: cosine {similarity} with FP32: not counted")
    print(f"{cpu}: ncnn, {mode}: {counts.total()}, cosine {similarity:.5f}", file=sys.stderr)
    return counts.total()


def show(counts: Counts) -> None:
    """In millions."""
    print(f"{'million instructions':24}" + "".join(f"{cpu:>14}" for cpu in CPUS))
    for engine, by_cpu in counts.items():
        for mode in sorted({mode for modes in by_cpu.values() for mode in modes}):
            cells = [by_cpu.get(cpu, {}).get(mode) for cpu in CPUS]
            numbers = (f"{n / 1e6:14.2f}" if n else f"{'':14}" for n in cells)
            print(f"{engine + ' ' + mode:24}" + "".join(numbers))
    if "ncnn" in counts:
        ratios = (f"{ratio:14.2f}" for ratio in ratios_to_ncnn(counts).values())
        print(f"{'ours / least of ncnn':24}" + "".join(ratios) + f"   bar {BAR}")


def ratios_to_ncnn(counts: Counts) -> dict[str, float]:
    """Our INT8 over the least that ncnn needs in any precision, by CPU."""
    ours, ncnn = counts["pyedge"], counts["ncnn"]
    return {cpu: ours[cpu]["int8"] / min(ncnn[cpu].values()) for cpu in CPUS if cpu in ncnn}


def show_functions(counts: dict[str, Counter], most: int) -> None:
    for title, functions in counts.items():
        print(f"\n{title}")
        rows = functions.most_common(most)
        names = "\n".join(name for name, _ in rows)
        demangled = subprocess.run(["c++filt"], input=names, capture_output=True, text=True)
        for name, (_, number) in zip(demangled.stdout.splitlines(), rows, strict=True):
            print(f"{number / 1e6:12.3f} M  {name[:100]}")


def regressions(counts: Counts, baseline: Counts, percent: float) -> list[str]:
    """What of ours needs so many percent more instructions than in the baseline."""
    return [
        f"{cpu}, {precision}: {now} instructions, {100 * (now / was - 1):+.2f} % of {was}"
        for cpu, precisions in baseline["pyedge"].items()
        for precision, was in precisions.items()
        if (now := counts["pyedge"].get(cpu, {}).get(precision, was)) > was * (1 + percent / 100)
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cache = Path.home() / ".cache" / "pyedge-arm"
    parser.add_argument("--cache", type=Path, default=cache, help="folder for what is fetched")
    parser.add_argument("--cpu", choices=CPUS, action="append", help="all three by default")
    parser.add_argument("--program", type=Path, help="run_model for ARM; built where not given")
    parser.add_argument("--ncnn", action="store_true", help="count ncnn too, in every precision")
    parser.add_argument("--functions", type=int, default=0, help="how many to list")
    parser.add_argument("--json", type=Path, help="write the counts")
    parser.add_argument("--compare", type=Path, help="counts written before; ncnn's are taken over")
    parser.add_argument("--fail-above", type=float, default=1.0, help="percent (default: 1)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    args.cache.mkdir(parents=True, exist_ok=True)
    plugin = guest.build_plugin(args.cache)
    program = args.program or guest.build_program(args.cache)
    cpus = args.cpu or CPUS
    baseline = json.loads(args.compare.read_text()) if args.compare else {}
    counts: Counts = {"pyedge": {}}
    functions = {}
    with tempfile.TemporaryDirectory() as folder:
        models = Models(Path(folder))
        for cpu in cpus:
            for precision in PRECISIONS:
                counted = count_ours(models, plugin, program, cpu, precision)
                counts["pyedge"].setdefault(cpu, {})[precision] = counted.total()
                functions[f"{cpu}, {precision}"] = counted
        if args.ncnn:
            guest.fetch_ncnn(args.cache)
            models.make_ncnn(args.cache)
            counts["ncnn"] = {
                cpu: {m: count_ncnn(models, plugin, args.cache, cpu, m) for m in NCNN_MODES}
                for cpu in cpus
            }
        elif "ncnn" in baseline:
            counts["ncnn"] = {cpu: baseline["ncnn"][cpu] for cpu in cpus}
    show(counts)
    if args.functions:
        show_functions(functions, args.functions)
    if args.json:
        args.json.write_text(json.dumps(counts, indent=1) + "\n")
    worse = regressions(counts, baseline, args.fail_above) if baseline else []
    if worse:
        raise SystemExit("\n".join(["more instructions than the baseline:", *worse]))


if __name__ == "__main__":
    main()
