"""What the inner loops of ARM kernels take on a Cortex-A55 and A76, as llvm-mca estimates it.

An instruction count (arm_instructions.py) weighs a load as much as a multiply-accumulate; this
weighs them by the pipelines of a CPU, with every load in the first cache. LLVM 14 describes
the A76 by the pipelines of the A57, half as wide for floats.

python tests/benchmarks/arm_mca.py BUILD [KERNEL...] [--loops 3] [--json]

BUILD is a folder of a cross build; KERNEL a part of a source's path, such as conv/i8/arm_dotprod
(by default every ARM convolution). Needs llvm-mca and aarch64-linux-gnu-objdump.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

CPUS = ("cortex-a55", "cortex-a76")
FEATURES = "+dotprod,+i8mm,+fullfp16"
ITERATIONS = 200

# Multiply-accumulates of one instruction: by mnemonic, and the arrangement of its destination.
MACS = {
    ("smmla", "4s"): 32,
    ("sdot", "4s"): 16,
    **{(name, "8h"): 8 for name in ("smull", "smull2", "smlal", "smlal2")},
    **{(name, "4s"): 4 for name in ("smull", "smull2", "smlal", "smlal2", "mla", "fmla")},
}


@dataclass(frozen=True)
class Instruction:
    address: int
    mnemonic: str
    operands: str

    @property
    def macs(self) -> int:
        arrangement = re.match(r"v\d+\.(\w+)", self.operands)
        return MACS.get((self.mnemonic, arrangement[1]), 0) if arrangement else 0

    @property
    def target(self) -> int | None:
        """Where a branch within the function goes."""
        if not re.match(r"(b|b\.\w+|cbn?z|tbn?z)$", self.mnemonic):
            return None
        found = re.search(r"([0-9a-f]+) <", self.operands)
        return int(found[1], 16) if found else None

    def text(self) -> str:
        operands = re.sub(r"[0-9a-f]+ <.*", "1b", self.operands) if self.target else self.operands
        return f"{self.mnemonic} {operands}"


@dataclass(frozen=True)
class Loop:
    """One innermost loop; cycles of an iteration by CPU."""

    kernel: str
    function: str
    instructions: int
    loads: int
    macs: int
    cycles: dict[str, float]


def functions(path: Path) -> Iterator[tuple[str, list[Instruction]]]:
    """Of an object file, with the names as they are in the source."""
    command = ["aarch64-linux-gnu-objdump", "-d", "-C", "--no-show-raw-insn", str(path)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for block in re.split(r"\n\n", listing):
        head = re.search(r"^[0-9a-f]+ <(.*)>:$", block, re.MULTILINE)
        lines = re.findall(r"^ *([0-9a-f]+):\t(\S+)(?:\t(.*))?$", block, re.MULTILINE)
        if head:
            yield head[1], [Instruction(int(at, 16), name, rest) for at, name, rest in lines]


def innermost_loops(code: list[Instruction]) -> list[list[Instruction]]:
    spans = {(i.target, i.address) for i in code if i.target is not None and i.target <= i.address}
    inner = [
        (first, last)
        for first, last in spans
        if not any(
            (a, b) != (first, last) and first <= a and b <= last and a >= code[0].address
            for a, b in spans
        )
    ]
    return [[i for i in code if first <= i.address <= last] for first, last in inner]


def cycles(body: list[Instruction], cpu: str) -> float:
    """Of one iteration, in a row of many."""
    text = "1:\n" + "\n".join(i.text().split("//")[0] for i in body) + "\n"
    command = ["llvm-mca", "-mtriple=aarch64", f"-mcpu={cpu}", f"-mattr={FEATURES}"]
    command += [f"-iterations={ITERATIONS}", "-instruction-info=0", "-resource-pressure=0"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    total = re.search(r"Total Cycles: +(\d+)", done.stdout)
    if done.returncode or not total:
        raise SystemExit(f"llvm-mca: {done.stderr}\n{text}")
    return int(total[1]) / ITERATIONS


def loops(path: Path, kernel: str, most: int) -> list[Loop]:
    """Those with the most multiply-accumulates, greatest first."""
    found = [
        (sum(i.macs for i in body), name, body)
        for name, code in functions(path)
        for body in innermost_loops(code)
    ]
    found = sorted((row for row in found if row[0]), key=lambda row: -row[0])[:most]
    return [
        Loop(
            kernel,
            name,
            len(body),
            sum(i.mnemonic.startswith("ld") for i in body),
            macs,
            {cpu: cycles(body, cpu) for cpu in CPUS},
        )
        for macs, name, body in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("kernels", nargs="*", default=["conv/"])
    parser.add_argument("--loops", type=int, default=3, help="how many of each source file")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for path in sorted(args.build.rglob("kernels/**/arm_*.o")):
        kernel = str(path).split("kernels/", 1)[1].removesuffix(".cc.o")
        if any(part in kernel for part in args.kernels):
            rows += loops(path, kernel, args.loops)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    head = f"{'kernel':24}{'instructions':>14}{'loads':>7}{'MACs':>6}"
    print(
        head + "".join(f"{cpu + ': cycles':>20}{'MACs/cycle':>12}" for cpu in CPUS) + "  function"
    )
    for row in rows:
        line = f"{row.kernel:24}{row.instructions:14}{row.loads:7}{row.macs:6}"
        for cpu in CPUS:
            line += f"{row.cycles[cpu]:20.1f}{row.macs / row.cycles[cpu]:12.1f}"
        name = re.sub(r"^void |pyedge::|\(anonymous namespace\)::", "", row.function)
        print(f"{line}  {name[:60]}")


if __name__ == "__main__":
    main()
