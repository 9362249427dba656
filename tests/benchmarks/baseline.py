"""The saved baseline of this CPU: its file, and results of several runs made into one.

cd tests && python benchmarks/baseline.py                 the file; status 1 where there is none
cd tests && python benchmarks/baseline.py --save A.json…  writes it from --benchmark-json files
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import pyedge

FOLDER = Path(__file__).resolve().with_name("baselines")


def baseline_path() -> Path:
    """By CPU model and best instruction set: clouds give many models one name."""
    features = pyedge.features()
    name = re.sub(r"[^a-z0-9]+", "-", f"{features['cpu']} {features['default_isa']}".lower())
    return FOLDER / f"{name.strip('-')}.json"


def merged(files: list[Path]) -> str:
    """One document; of a benchmark in several files the run with the least median, a line each."""
    results = [json.loads(path.read_bytes()) for path in files]
    best: dict[str, dict] = {}
    for result in results:
        for benchmark in result["benchmarks"]:
            name, median = benchmark["fullname"], benchmark["stats"]["median"]
            if name not in best or median < best[name]["stats"]["median"]:
                best[name] = benchmark
    head = {key: value for key, value in results[0].items() if key != "benchmarks"}
    rows = ",\n".join(json.dumps(best[name]) for name in sorted(best))
    return f'{json.dumps(head)[:-1]}, "benchmarks": [\n{rows}\n]}}\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, nargs="+", metavar="FILE")
    args = parser.parse_args()
    path = baseline_path()
    if args.save:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(merged(args.save))
    if not path.exists():
        print(f"no baseline of this CPU: {path}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
