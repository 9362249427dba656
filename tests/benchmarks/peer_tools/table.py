"""What the rows amount to: ratios, and a table."""

from __future__ import annotations

from typing import Any

import numpy as np

_OURS = "pyedge"


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many times faster ours is: INT8 against the best peer in any precision, FP32 against
    each peer's FP32. Medians over the rounds, each round compared with itself.
    """
    ours = [row for row in rows if row["engine"] == _OURS]
    peers = [row for row in rows if row["engine"] != _OURS and row["comparable"]]
    result: dict[str, Any] = {}
    int8 = [row for row in ours if row["precision"].startswith("int8")]
    if int8 and peers:
        mine = min(int8, key=_median)
        best = min(peers, key=_median)
        result["int8_to_best_peer"] = _ratio(best, mine)
        result["best_peer"] = f"{best['engine']} {best['precision']}"
    for mine in (row for row in ours if row["precision"] == "fp32"):
        for peer in (row for row in peers if row["precision"] == "fp32"):
            result[f"fp32_to_{peer['engine']}_fp32"] = _ratio(peer, mine)
    return result


def print_table(
    network: str, batch: int, isa: str | None, cpu: str, result: dict[str, Any]
) -> None:
    rows = result["rows"]
    base = min((r for r in rows if r["engine"] == _OURS), key=_median, default=None)
    print(f"\n{network}, batch {batch}, {cpu}, {isa or 'every instruction set'}")
    print(
        f"{'engine':12}{'precision':16}{'median ms':>10}{'fastest':>9}{'/ ours':>8}"
        f"{'cosine':>9}  way"
    )
    for row in sorted(rows, key=_median):
        notes = "" if row["comparable"] else " (not held to the instruction set: not compared)"
        notes += " (SPINS while asleep)" if row["spins"] else ""
        print(
            f"{row['engine']:12}{row['precision']:16}{1e3 * row['median_seconds']:10.2f}"
            f"{1e3 * row['min_seconds']:9.2f}{_ratio(row, base) if base else 0:8.2f}"
            f"{row['cosine']:9.4f}  {row['way']}{notes}"
        )
    for row in result["failed"]:
        for way in row["ways"]:
            print(f"{row['engine']:12}{row['precision']:16}{way['name']}: {way['error']}")
    for name, value in result["ratios"].items():
        print(f"{name}: {value if isinstance(value, str) else f'{value:.2f}'}")


def _median(row: dict[str, Any]) -> float:
    return row["median_seconds"]


def _ratio(slower: dict[str, Any], faster: dict[str, Any]) -> float:
    return float(np.median(np.divide(slower["round_seconds"], faster["round_seconds"])))
