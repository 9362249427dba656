"""One engine in a process of its own, which runs when it is told to and sleeps otherwise.

Reads lines of JSON from the pipe `--requests` and answers on `--answers`, so that what an engine
prints disturbs nothing: first the task, which loads every candidate and answers what became of
each; then {"select": true}, which keeps the fastest, and {"run": n}, which answers n times.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import ENGINES, Runner

_PROBE_ROUNDS = 5


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The least over the images of a batch."""
    a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)))


def seconds(runner: Runner, count: int) -> list[float]:
    result = []
    for _ in range(count):
        start = time.perf_counter()
        runner.run()
        result.append(time.perf_counter() - start)
    return result


class Task:
    """The candidates of an engine: loaded, checked, and then the fastest of them."""

    def __init__(self, task: dict, x: np.ndarray, expected: np.ndarray) -> None:
        self.runners: dict[str, Runner] = {}
        self.outcomes: list[dict] = []
        for candidate in task["candidates"]:
            outcome = {"name": candidate["name"]}
            self.outcomes.append(outcome)
            try:
                runner = ENGINES[task["engine"]](x, **candidate["options"])
                runner.run()
                outcome["cosine"] = cosine(runner.output(), expected)
            except Exception as error:  # an engine that cannot do it is a result, too
                outcome["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                continue
            outcome["version"] = runner.version
            if outcome["cosine"] >= task["cosine"]:
                self.runners[candidate["name"]] = runner
            else:
                outcome["error"] = f"the output is wrong: cosine {outcome['cosine']:.3f}"

    def select(self) -> None:
        """Times the candidates in turn and keeps the fastest."""
        times: dict[str, list[float]] = {name: [] for name in self.runners}
        for _ in range(_PROBE_ROUNDS):
            for name, runner in self.runners.items():
                times[name].append(min(seconds(runner, 3)[1:]))
        best = {name: min(values) for name, values in times.items()}
        for outcome in self.outcomes:
            if outcome["name"] in best:
                outcome["seconds"] = best[outcome["name"]]
        fastest = min(best, key=lambda name: best[name])
        self.runners = {fastest: self.runners[fastest]}

    def run(self, count: int) -> list[float]:
        (runner,) = self.runners.values()
        return seconds(runner, count)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--answers", type=int, required=True)
    args = parser.parse_args()
    with os.fdopen(args.requests) as requests, os.fdopen(args.answers, "w") as answers:

        def answer(value: object) -> None:
            print(json.dumps(value), file=answers, flush=True)

        task = json.loads(requests.readline())
        os.sched_setaffinity(0, task["cores"])
        data = np.load(task["data"])
        x, expected = data["x"], data["expected"]
        if len(x) != task["batch"]:
            x, expected = x[: task["batch"]], expected[: task["batch"]]
        loaded = Task(task, x, expected)
        answer(loaded.outcomes)
        for line in requests:
            request = json.loads(line)
            if "run" in request:
                answer(loaded.run(request["run"]))
            else:
                loaded.select()
                answer(loaded.outcomes)


if __name__ == "__main__":
    main()
