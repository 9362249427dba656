"""What the commands share: JSON or tables on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

Progress = Callable[[str, int, int], None]  # what is going on, done, of how many

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of tables.")
]
ThreadsOption = Annotated[int, typer.Option("--threads", "-t", min=1, help="Threads to run on.")]
IsaOption = Annotated[
    str | None,
    typer.Option(
        "--isa", help="Instruction set to run with, as `pyedge doctor` lists them; default: best."
    ),
]
AffinityOption = Annotated[
    str,
    typer.Option(
        "--affinity", help="CPUs to run on, where some are faster than others: all, big or little."
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="PATH",
        help="Keep packed weights in this file, or in a file of this folder, for the next start.",
    ),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="FILE.pye", help="A converted model.")]

_PIPE_WIDTH = 160  # columns for tables that no terminal shows


def console() -> Console:
    """Standard output. Names from files are shown as they are: brackets in them are no markup."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False)


def error_line(message: str) -> None:
    """Prints `error: message` as one line on standard error, free of control characters."""
    text = " ".join(message.split())
    with contextlib.suppress(OSError):  # nobody listens
        print("error: " + "".join(c if c.isprintable() else "?" for c in text), file=sys.stderr)


def version_of(package: str) -> str | None:
    """The version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def to_json(value: Any) -> Any:
    """`value` made of JSON's own types; what JSON has no number for becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def print_json(value: Any) -> None:
    """Prints `value` as one JSON document on standard output."""
    typer.echo(json.dumps(to_json(value), indent=2, ensure_ascii=False))


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], left: int = 1
) -> Table:
    """A table whose first `left` columns are text and the others numbers, right-aligned."""
    result = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar with the time left on standard error; yields what the library calls as it goes on.

    Nothing is drawn where standard error is no terminal, and nothing stays when all is done.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    stderr = Console(stderr=True)
    with Bars(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bars:
        task = bars.add_task("", total=None)
        before = 0

        def advance(what: str, done: int, total: int) -> None:
            nonlocal before
            if done < before:  # something else has begun: its time is its own
                bars.reset(task)
            before = done
            bars.update(task, description=what, completed=done, total=total)

        yield advance


def quantity(value: float, unit: str = "") -> str:
    """`value` with the prefix that leaves one to three digits before the point."""
    prefixes = ["", "k", "M", "G"]
    while abs(value) >= 1000 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    number = f"{value:.2f}" if prefixes[0] else f"{value:g}"
    return f"{number} {prefixes[0]}{unit}".rstrip()
