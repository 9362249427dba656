"""Benchmarks are saved small: what a comparison needs, and the CPU they are of."""

from __future__ import annotations

from typing import Any

import pyedge

_STATS = ("min", "max", "mean", "stddev", "median", "iqr", "ops")
_AS_THEY_ARE = ("outliers", "rounds")
_DIGITS = 5


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, Any]) -> None:
    features = pyedge.features()
    machine_info.clear()
    machine_info["cpu"] = {"brand_raw": features["cpu"], "isa": features["default_isa"]}


def pytest_benchmark_update_json(
    config: object, benchmarks: object, output_json: dict[str, Any]
) -> None:
    output_json["commit_info"] = {}
    for benchmark in output_json["benchmarks"]:
        stats = benchmark["stats"]
        benchmark["stats"] = {key: float(f"{stats[key]:.{_DIGITS}g}") for key in _STATS}
        benchmark["stats"] |= {key: stats[key] for key in _AS_THEY_ARE}
        benchmark["stats"]["iterations"] = 1
        benchmark["params"] = benchmark["options"] = None
