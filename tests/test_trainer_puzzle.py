"""The Second Chance: three ways to solve it, one answer."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ranks import run_ranks

from pyedge.errors import InvalidArgumentError
from pyedge.trainer import Group
from pyedge.trainer.puzzle import Comparison, Puzzle, collapsed, compare, growing, sharded
from pyedge.trainer.puzzle.__main__ import main
from pyedge.trainer.puzzle.digits import e_digits, pi_digits
from pyedge.trainer.puzzle.problem import INPUTS, LEARNING_RATE, Reduction, initial_row, samples

REDUCTIONS: list[Reduction] = ["sum", "mean"]
BAR = 1e-6


def on_rank(puzzle: Puzzle, steps: int, dtype: torch.dtype) -> Comparison:
    return compare(sharded(puzzle, Group(), dtype), puzzle, steps)


def test_digits() -> None:
    pi = "31415926535897932384626433832795028841971693993751058209749445923078164062862089986280"
    e = "27182818284590452353602874713526624977572470936999595749669676277240766303535475945713"
    assert "".join(map(str, pi_digits(len(pi)))) == pi
    assert "".join(map(str, e_digits(len(e)))) == e
    # Digits that are asked for do not depend on where the series are cut off.
    assert pi_digits(256) == pi_digits(300)[:256]
    assert e_digits(4096) == e_digits(4200)[:4096]
    assert pi_digits(1) == [3]


def test_summed_loss_ends_after_two_steps() -> None:
    """At a value with a formula, whatever the class count; and W1 to one decimal."""
    x, p = samples(), initial_row(INPUTS)
    w = p - LEARNING_RATE**2 * (x @ p).max() * x.sum(0)
    for classes in (2**10, 2**16, 2**22):
        run = list(collapsed(Puzzle(classes, "sum")))
        assert len(run) == 3
        assert run[2].loss == pytest.approx(32 * math.log(classes), rel=1e-12)
        np.testing.assert_allclose(run[2].w1, w, rtol=0, atol=1e-13)
    assert (x @ w).max() < 0
    assert [round(float(v), 1) for v in w[:8]] == [-4.6, -4.4, -3.3, -4.1, -4.5, -3.7, -4.6, -3.3]


def test_averaged_loss_ends_with_every_unit_dead() -> None:
    """2¹⁷ classes: merging those whose future is alike changes nothing."""
    puzzle = Puzzle(2**17, "mean")
    merged, whole = list(collapsed(puzzle)), list(collapsed(puzzle, keep_all=True))
    assert len(merged) == len(whole) == 3474 < puzzle.steps
    np.testing.assert_allclose([s.loss for s in merged], [s.loss for s in whole], rtol=1e-12)
    np.testing.assert_allclose(merged[-1].w1, whole[-1].w1, rtol=0, atol=1e-13)
    assert (samples() @ merged[-1].w1).max() <= 0
    # An answer to one decimal is one only where the error is far from the next rounding.
    tenths = np.abs(merged[-1].w1) * 10
    assert np.abs(tenths - np.floor(tenths) - 0.5).min() > 1e-4


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_growing_is_collapsed(reduction: Reduction) -> None:
    for classes, steps in ((2**10, 32), (2**16, 64), (2**22, 64)):
        puzzle = Puzzle(classes, reduction)
        comparison = compare(growing(puzzle, steps), puzzle, steps)
        assert comparison.steps == steps
        assert max(comparison.w1_distances) <= BAR
        assert max(comparison.loss_distances) <= BAR


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("classes", "steps"), [(2**10, 32), (2**16, 3)])
def test_sharded_is_collapsed(reduction: Reduction, classes: int, steps: int) -> None:
    puzzle = Puzzle(classes, reduction)
    first, second = run_ranks(2, on_rank, puzzle, steps, torch.float64)
    assert first.losses == second.losses
    assert first.w1 == second.w1
    assert first.steps == steps
    assert max(first.w1_distances) <= BAR
    assert max(first.loss_distances) <= BAR
    whole = on_rank(puzzle, steps, torch.float64)
    assert np.abs(np.subtract(whole.w1, first.w1)).max() <= BAR


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_float32(reduction: Reduction) -> None:
    """W2 and its gradient in float32 are enough for W1."""
    comparison = run_ranks(2, on_rank, Puzzle(2**16, reduction), 5, torch.float32)[0]
    assert max(comparison.w1_distances) <= BAR


def test_a_comparison_sees_what_differs() -> None:
    puzzle = Puzzle(2**10, "mean")
    wrong = (
        replace(step, w1=step.w1 + 1e-3 * (i == 4)) for i, step in enumerate(collapsed(puzzle))
    )
    comparison = compare(wrong, puzzle, 6)
    assert comparison.w1_distances == [0, 0, 0, 0, pytest.approx(1e-3), 0]


def test_bad_arguments() -> None:
    with pytest.raises(InvalidArgumentError, match="33 classes; expected a multiple of 32"):
        Puzzle(33)
    with pytest.raises(InvalidArgumentError, match="'max'; expected sum or mean"):
        Puzzle(reduction="max")  # type: ignore[arg-type]


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["puzzle", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    code, out, _ = run("collapsed", "--json")
    report = json.loads(out)
    assert (code, report["classes"], len(report["w1"])) == (0, 2**22, INPUTS)
    code, out, _ = run("collapsed")
    assert code == 0
    assert "131,072; every ReLU dead after 2" in out
    assert "-4.6 -4.4 -3.3 -4.1 -4.5" in out
    code, out, _ = run("growing", "--steps", "3", "--json")
    assert (code, json.loads(out)["steps"]) == (0, 3)
    for wrong, message in (
        (["collapsed", "--classes", "7"], "7 classes; expected a multiple of 32"),
        (["sharded", "--ranks", "3"], "3 ranks; expected a number that divides the batch of 32"),
    ):
        assert run(*wrong) == (2, "", f"error: {message}\n")
