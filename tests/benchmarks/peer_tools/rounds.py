"""Engines in processes of their own that take turns: one runs, the others sleep."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_WORKER = Path(__file__).with_name("worker.py")
# Of FP32's output; a quantizer that does worse has not kept the network.
_LEAST_COSINE = {"fp32": 0.9999}
_LEAST_COSINE_OTHERS = 0.98
# A sleeping engine may not use more of a core than that.
_SPINNING = 0.02


@dataclass
class Row:
    """An engine in one precision, and the ways to run it: options of its class by name."""

    engine: str
    precision: str
    candidates: dict[str, dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}"


class Worker:
    """The process of a row, started and loaded."""

    def __init__(
        self,
        row: Row,
        python: str,
        environment: dict[str, str],
        folder: Path,
        cores: Sequence[int],
        batch: int,
    ) -> None:
        self.row = row
        read_requests, write_requests = os.pipe()
        read_answers, write_answers = os.pipe()
        command = [python, "-P", str(_WORKER), "--requests", str(read_requests)]
        with (folder / f"{row.name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--answers", str(write_answers)],
                env=environment,
                pass_fds=(read_requests, write_answers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        os.close(read_requests)
        os.close(write_answers)
        self.requests = os.fdopen(write_requests, "w")
        self.answers = os.fdopen(read_answers)
        self.outcomes: list[dict[str, Any]] = self._ask(
            {
                "engine": row.engine,
                "candidates": [{"name": n, "options": o} for n, o in row.candidates.items()],
                "data": str(folder / "data.npz"),
                "cores": list(cores),
                "batch": batch,
                "cosine": _LEAST_COSINE.get(row.precision, _LEAST_COSINE_OTHERS),
            }
        ) or [{"name": row.name, "error": f"the process ended, see {log.name}"}]
        self.chosen: dict[str, Any] = {}

    @property
    def usable(self) -> bool:
        return any("error" not in outcome for outcome in self.outcomes)

    def summary(self) -> str:
        found = (
            f"{o['name']}: " + (o.get("error") or f"cosine {o['cosine']:.4f}")
            for o in self.outcomes
        )
        return f"{self.row.name}: {'; '.join(found)}"

    def failure(self) -> dict[str, Any]:
        return {"engine": self.row.engine, "precision": self.row.precision, "ways": self.outcomes}

    def select(self) -> None:
        """Has it keep the fastest of its candidates."""
        self.outcomes = self._ask({"select": True})
        usable = [outcome for outcome in self.outcomes if "seconds" in outcome]
        self.chosen = min(usable, key=lambda outcome: outcome["seconds"])

    def run(self, count: int) -> list[float]:
        return self._ask({"run": count})

    def cpu_seconds(self) -> float:
        """Time that its threads have spent on a core."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended meanwhile
                total += int((task / "schedstat").read_text().split()[0])
        return total * 1e-9

    def close(self) -> None:
        self.requests.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ask(self, request: Any) -> Any:
        try:
            print(json.dumps(request), file=self.requests, flush=True)
            line = self.answers.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else []


@contextlib.contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Keeps others who lock the file from running meanwhile."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure(
    workers: Sequence[Worker], rounds: int, seconds: float, lock: Path | None
) -> list[dict[str, Any]]:
    """Runs each for `seconds` in each round, in turn; a dictionary for each, in the same order."""
    for worker in workers:
        with locked(lock):
            worker.select()
    medians = np.empty((rounds, len(workers)))
    fastest = np.empty_like(medians)
    slept, idle = np.zeros(len(workers)), np.zeros(len(workers))
    counts = [max(2, round(seconds / worker.chosen["seconds"])) for worker in workers]
    for r in range(rounds):
        with locked(lock):
            for index, (worker, count) in enumerate(zip(workers, counts, strict=True)):
                others = [i for i in range(len(workers)) if i != index]
                before = {i: workers[i].cpu_seconds() for i in others}
                start = time.perf_counter()
                worker.run(1)  # its code and weights come back into the caches
                times = worker.run(count)
                wall = time.perf_counter() - start
                medians[r, index], fastest[r, index] = np.median(times), min(times)
                for i in others:
                    slept[i] += wall
                    idle[i] += workers[i].cpu_seconds() - before[i]
    spinning = idle / np.maximum(slept, 1e-9)
    return [
        {
            "row": worker.row,
            "engine": worker.row.engine,
            "precision": worker.row.precision,
            "version": worker.chosen["version"],
            "way": worker.chosen["name"],
            "cosine": worker.chosen["cosine"],
            "median_seconds": float(np.median(medians[:, index])),
            "min_seconds": float(fastest[:, index].min()),
            "round_seconds": medians[:, index].tolist(),
            "asleep_share": float(spinning[index]),
            "spins": bool(spinning[index] > _SPINNING),
            "ways": worker.outcomes,
        }
        for index, worker in enumerate(workers)
    ]
