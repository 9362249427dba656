"""`pyedge pack`: a large training set as tar files, from folders of faces or made elsewhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyedge.cli.output import (
    JsonOption,
    console,
    error_line,
    print_json,
    progress,
    quantity,
    table,
)
from pyedge.errors import InvalidArgumentError, InvalidImageError

if TYPE_CHECKING:
    from pyedge.trainer.data import Shards

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that read and decode; default: one for each CPU."),
]

_SHOWN = 10  # broken images that are shown by name


@app.callback()
def pack() -> None:
    """Put a large training set into tar files, which `pyedge train` reads from end to end."""


@app.command("write")
def write(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Aligned crops of 112x112: a folder for each identity, or files named "
            "person_number.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="The folder to write; new, or unfinished."),
    ],
    images_per_shard: Annotated[int, typer.Option(min=1, help="Images of a tar file.")] = 10_000,
    min_images: Annotated[
        int, typer.Option(min=1, help="Leave out identities with fewer images.")
    ] = 1,
    hold_out: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Keep out this share of the identities, by their names."
        ),
    ] = 0.0,
    exclude: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Leave out these identities, a name on each line: those of evaluation pairs.",
        ),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out broken images, instead of stopping.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the images.")] = 0,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pack folders of identities. What is interrupted goes on when the same command comes again."""
    from pyedge.trainer.data import FaceFolder, write_shards

    names = set() if exclude is None else set(_lines(exclude))
    started = time.monotonic()
    found = FaceFolder.scan(folders).at_least(min_images)
    faces, held = found.without(names).hold_out(hold_out)
    try:
        with (
            _interrupted(f"{out} is unfinished, and the same command goes on"),
            progress() as advance,
        ):
            packed = write_shards(
                faces, out, images_per_shard, seed, skip_broken, _processes(workers), advance
            )
    except InvalidImageError as error:
        raise InvalidImageError(
            f"{error} with a whole image in its place, or --skip-broken"
        ) from error
    counts = {
        "excluded": len(names.intersection(found.names)),
        "held_out": len(held.names),
        "broken": list(packed.broken),
    }
    figures = _figures(packed.shards, time.monotonic() - started, packed.written)
    if as_json:
        print_json({**figures, **counts})
        return
    _show(figures)
    screen = console()
    if exclude is not None:
        screen.print(f"left out: {counts['excluded']} of the {len(names)} people in {exclude}")
    if hold_out:
        screen.print(f"held out: {len(held.names)} people")
    for reason in packed.broken[:_SHOWN]:
        screen.print(f"left out: {reason}")
    if len(packed.broken) > _SHOWN:
        screen.print(f"left out: {len(packed.broken) - _SHOWN} more broken images")


@app.command("index")
def index(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="With tar files in the form of WebDataset: KEY.jpg (or another kind of image) and "
            'KEY.cls, the class as text, or KEY.json with {"label": CLASS}.',
        ),
    ],
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="How many; default: one more than the largest found."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of the classes, one on each line, from 0 on."),
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Index tar files that were made elsewhere, so that `pyedge train` takes them."""
    from pyedge.trainer.data import index_shards

    given = None if names is None else _lines(names)
    started = time.monotonic()
    with _interrupted(f"{folder} is as it was"), progress() as advance:
        shards = index_shards(folder, classes, given, _processes(workers), advance)
    figures = _figures(shards, time.monotonic() - started, shards.total)
    if as_json:
        print_json(figures)
    else:
        _show(figures)


@contextmanager
def _interrupted(what: str) -> Iterator[None]:
    """A process that is asked to end (SIGINT, SIGTERM) tidies up and says how things stand."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        error_line(f"interrupted; {what}")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _processes(workers: int | None) -> int:
    return len(os.sched_getaffinity(0)) if workers is None else workers


def _lines(path: Path) -> list[str]:
    """The names in a text file, one on each line; empty lines do not count.

    Raises:
        InvalidArgumentError: it cannot be read, is no text in UTF-8, or has no name.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}: no text in UTF-8: {error}") from error
    names = [name for line in lines if (name := line.strip())]
    if not names:
        raise InvalidArgumentError(f"{path}: no names; expected one on each line")
    return names


def _figures(shards: Shards, seconds: float, images: int) -> dict[str, Any]:
    """Of a set of which so many images took so long."""
    return {
        "folder": shards.folder,
        "shards": len(shards.files),
        "samples": shards.total,
        "classes": shards.classes,
        "bytes": sum(shards.sizes),
        "seconds": seconds,
        "images_per_second": images / max(seconds, 1e-9),
    }


def _show(figures: dict[str, Any]) -> None:
    row = [
        *(f"{figures[name]:,}" for name in ("shards", "samples", "classes")),
        quantity(figures["bytes"], "B"),
        f"{figures['seconds']:.1f}",
        f"{figures['images_per_second']:,.0f}",
    ]
    columns = ["shards", "images", "classes", "bytes", "seconds", "images/s"]
    console().print(table(str(figures["folder"]), columns, [row], left=0))
