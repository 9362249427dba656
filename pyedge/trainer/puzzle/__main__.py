"""`python -m pyedge.trainer.puzzle`: each of the three ways, and the bars that they must clear."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import torch
import typer

from pyedge.cli.output import JsonOption, console, error_line, print_json, table
from pyedge.errors import PyEdgeError
from pyedge.trainer.puzzle import bars
from pyedge.trainer.puzzle.collapsed import collapsed
from pyedge.trainer.puzzle.compare import Comparison, compare
from pyedge.trainer.puzzle.growing import growing
from pyedge.trainer.puzzle.local_ranks import compare_on_ranks
from pyedge.trainer.puzzle.problem import CLASSES, Puzzle, Step

app = typer.Typer(
    help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)

ReductionOption = Annotated[
    str, typer.Option("--reduction", help="Of the losses of a batch: sum or mean.")
]
ClassesOption = Annotated[int, typer.Option("--classes", help="A multiple of 32.")]
StepsOption = Annotated[int, typer.Option("--steps", min=1, help="How many of the first steps.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32 or float64.")]


@app.command("collapsed")
def _collapsed(
    reduction: ReductionOption = "sum", classes: ClassesOption = CLASSES, json: JsonOption = False
) -> None:
    """The recursion to its end, and the answer."""
    puzzle = _puzzle(classes, reduction)
    start = time.perf_counter()
    losses, last = [], Step(0.0, np.zeros(0))
    for last in collapsed(puzzle):
        losses.append(last.loss)
    seconds = time.perf_counter() - start
    if json:
        print_json({**asdict(puzzle), "seconds": seconds, "losses": losses, "w1": last.w1})
        return
    end = f"every ReLU dead after {len(losses) - 1:,}" if len(losses) < puzzle.steps else "all done"
    _print_facts(
        f"{classes:,} classes, loss {reduction}",
        {
            "steps": f"{puzzle.steps:,}; {end}",
            "time": f"{seconds * 1e3:,.1f} ms",
            "loss, first and last": f"{losses[0]:.6f}, {losses[-1]:.6f}",
        },
    )
    console().print("every row of W1:")
    for row in (np.round(last.w1, 1) + 0.0).reshape(8, 16):  # + 0.0: no −0.0
        console().print(" ".join(f"{value:4.1f}" for value in row))


@app.command("growing")
def _growing(
    reduction: ReductionOption = "sum",
    classes: ClassesOption = CLASSES,
    steps: StepsOption = 100,
    dtype: DtypeOption = "float64",
    json: JsonOption = False,
) -> None:
    """Rows for the classes seen only; held against the collapsed run."""
    puzzle = _puzzle(classes, reduction)
    comparison = compare(growing(puzzle, min(steps, puzzle.steps), _dtype(dtype)), puzzle, steps)
    _print_comparison(puzzle, f"growing, {dtype}", comparison, json)


@app.command("sharded")
def _sharded(
    reduction: ReductionOption = "sum",
    classes: ClassesOption = 1024,
    steps: StepsOption = 100,
    ranks: Annotated[int, typer.Option("--ranks", min=1, help="Processes here.")] = 2,
    dtype: DtypeOption = "float32",
    json: JsonOption = False,
) -> None:
    """The network in full over several processes; held against the collapsed run.

    2²² classes × 256 in float32 take 10 GB over all ranks.
    """
    puzzle = _puzzle(classes, reduction)
    comparison = compare_on_ranks(puzzle, ranks, steps, _dtype(dtype), progress=True)
    _print_comparison(puzzle, f"sharded over {ranks}, {dtype}", comparison, json)


@app.command("bars")
def _bars(json: JsonOption = False) -> None:
    """What the ways must agree to, and how fast the collapsed one must be; some minutes."""
    results = bars.measure()
    if json:
        print_json(results)
    else:
        columns = ["what", "measured", "bar"]
        rows = [(r.what, f"{r.measured:.3g} {r.unit}", _limit(r)) for r in results]
        console().print(table("The Second Chance", columns, rows))
    if not all(result.cleared for result in results):
        raise typer.Exit(1)


def _limit(result: bars.Result) -> str:
    return "" if result.limit is None else f"≤ {result.limit:g} {result.unit}"


def _puzzle(classes: int, reduction: str) -> Puzzle:
    return Puzzle(classes, reduction)  # type: ignore[arg-type]  # it checks


def _dtype(name: str) -> torch.dtype:
    if name not in ("float32", "float64"):
        raise typer.BadParameter(f"--dtype is {name}; expected float32 or float64")
    return getattr(torch, name)


def _print_comparison(puzzle: Puzzle, how: str, comparison: Comparison, json: bool) -> None:
    if json:
        print_json({**asdict(puzzle), "how": how, **asdict(comparison)})
        return
    distances = comparison.w1_distances
    _print_facts(
        f"{puzzle.classes:,} classes, loss {puzzle.reduction}, {how}",
        {
            "steps": f"{comparison.steps:,}",
            "time": f"{comparison.seconds:,.1f} s",
            "loss, first and last": f"{comparison.losses[0]:.6f}, {comparison.losses[-1]:.6f}",
            "|ΔW1| to the collapsed run, in the end": f"{distances[-1]:.2e}",
            "|ΔW1|, at most": f"{max(distances):.2e}",
            "|Δloss| / loss, at most": f"{max(comparison.loss_distances):.2e}",
        },
    )


def _print_facts(title: str, facts: dict[str, Any]) -> None:
    console().print(table(title, ["", ""], list(facts.items())))


def main() -> None:
    """Runs the command; an error that a user can cause is a line and exit code 2."""
    try:
        app()
    except PyEdgeError as error:
        error_line(str(error))
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
