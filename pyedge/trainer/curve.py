"""The log of a run, one JSON object a line, and the picture of it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pyedge.errors import InvalidArgumentError, UnsupportedError
from pyedge.files import write_atomically


@dataclass(frozen=True)
class LogEntry:
    """One line: what happened since the line before.

    Attributes:
        step: how many the run has done.
        epoch: counted from 0.
        loss, accuracy: means over the steps since the line before; accuracy is a share.
        lr: learning rate.
        images_per_second: of all ranks.
        seconds: that the run has taken, all its resumptions together.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float
    lr: float
    images_per_second: float
    seconds: float


def read_log(path: str | os.PathLike[str]) -> list[LogEntry]:
    """The lines of a log, in rising order of the steps.

    A run that went on from a checkpoint may have taken steps again: the later ones count, and what
    stood from there on is forgotten. A last line without an end, of a run that was killed, is left
    out.

    Raises:
        InvalidArgumentError: the file cannot be read, or a line is no entry.
    """
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}: not a log: {error}") from error
    entries: list[LogEntry] = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        entry = _entry(line, f"{path}: line {number}")
        while entries and entries[-1].step >= entry.step:
            entries.pop()
        entries.append(entry)
    return entries


def draw_curve(entries: Sequence[LogEntry], path: str | os.PathLike[str]) -> None:
    """Draws loss, accuracy and learning rate against the steps as a PNG, whole or not at all.

    Raises:
        InvalidArgumentError: no entries.
        UnsupportedError: matplotlib is not installed.
    """
    if not entries:
        raise InvalidArgumentError(f"{path}: no steps to draw")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError("a curve needs matplotlib: pip install 'pyedge[train]'") from error
    # Without pyplot, which keeps figures and picks a window system.
    figure = Figure(figsize=(8, 8), layout="constrained")
    FigureCanvasAgg(figure)
    steps = [entry.step for entry in entries]
    axes = figure.subplots(3, 1, sharex=True)
    curves = (("loss", "loss"), ("accuracy", "accuracy"), ("lr", "learning rate"))
    for axis, (name, title) in zip(axes, curves, strict=True):
        values = [getattr(entry, name) for entry in entries]
        axis.plot(steps, values, linewidth=1, marker="." if len(steps) == 1 else None)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    axes[1].set_ylim(0, 1)
    axes[2].set_xlabel("step")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    write_atomically(path, picture.getvalue())


def _entry(line: str, where: str) -> LogEntry:
    """One line; NaN and infinity are numbers here, as a run that diverges writes them."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{where}: not JSON: {error}") from error
    names = {field.name for field in fields(LogEntry)}
    if not isinstance(values, dict) or not names <= values.keys():
        raise InvalidArgumentError(f"{where}: expected an object with {', '.join(sorted(names))}")
    for name in sorted(names):
        kinds = int if name in ("step", "epoch") else int | float
        if not isinstance(values[name], kinds) or isinstance(values[name], bool):
            raise InvalidArgumentError(f"{where}: {name} is {values[name]!r}; expected a number")
    return LogEntry(**{name: values[name] for name in names})
