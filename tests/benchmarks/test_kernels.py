"""Every kernel on layers of face networks, one thread, constants packed beforehand.

cd tests && pytest benchmarks/test_kernels.py --benchmark-only [-k "conv and not reference"]
"""

from __future__ import annotations

import pytest
from kernel_cases import Case, cases

from pyedge import _core

_OPS_IN_A_ROUND = 30_000_000  # multiply-adds, or 64 times the elements where there are none
_MULTIPLYING = ("conv", "fully_connected", "conv_transpose")
ROWS = [
    (op, *row)
    for op in _core.op_table()
    for row in _core.kernel_names("conv" if op == "fully_connected" else op)
]
PAIRS = [
    pytest.param(kernel, case, id=f"{kernel}-{case}")
    for op, kernel, _, runs in ROWS
    if runs
    for case in cases(op)
]


def test_every_kernel_has_a_case() -> None:
    """Where this CPU runs it."""
    without = {kernel for _, kernel, _, runs in ROWS if runs}
    for op, kernel, _, runs in ROWS:
        if kernel in without and runs and any(c.build().runner(kernel) for c in cases(op)):
            without.remove(kernel)
    assert not without


@pytest.mark.parametrize(("kernel", "case"), PAIRS)
def test_kernel(benchmark, kernel: str, case: Case) -> None:
    built = case.build()
    runner = built.runner(kernel)
    if runner is None:
        pytest.skip(f"{kernel} does not take it")
    reference = kernel.endswith("_reference")
    work = case.work if case.op in _MULTIPLYING else 64 * case.work
    repeats = 1 if reference else max(1, _OPS_IN_A_ROUND // work)
    benchmark.group = str(case)
    rounds = 3 if reference else 9
    benchmark.pedantic(runner.run, args=(repeats,), rounds=rounds, warmup_rounds=1)
    seconds = benchmark.stats["median"] / repeats
    benchmark.extra_info["microseconds"] = round(1e6 * seconds, 2)
    if case.op in _MULTIPLYING:
        benchmark.extra_info["gops"] = round(2e-9 * case.work / seconds, 1)
