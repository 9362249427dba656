"""`pyedge shards`: what a training checkpoint holds, and the same for another number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pyedge.cli.output import JsonOption, console, print_json, progress, quantity, table
from pyedge.errors import InvalidArgumentError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="A checkpoint's folder, or a run's, whose latest is meant."
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write; a new one.")
]


@app.callback()
def shards() -> None:
    """Look into a training checkpoint, merge or split its shards, import another trainer's."""


@app.command("info")
def info(
    checkpoint: CheckpointArgument,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare every file with its digest.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which classes lie where."""
    from pyedge.trainer.checkpoint import find

    _show(find(checkpoint), as_json, verify)


@app.command("merge")
def merge(checkpoint: CheckpointArgument, out: OutOption, as_json: JsonOption = False) -> None:
    """Write a checkpoint with one shard that has all classes."""
    from pyedge.trainer.checkpoint import find
    from pyedge.trainer.shards import merge as merge_shards

    with progress() as advance:
        merge_shards(find(checkpoint), out, advance)
    _show(out, as_json)


@app.command("split")
def split(
    checkpoint: CheckpointArgument,
    out: OutOption,
    ranks: Annotated[
        int | None,
        typer.Option(
            "--ranks", metavar="N", min=1, max=65536, help="That many shards, as even as can be."
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option("--sizes", metavar="A,B,...", help="Or shards of that many classes each."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint for another number of ranks; the optimizer's state goes along."""
    from pyedge.trainer.checkpoint import Checkpoint, find
    from pyedge.trainer.partition import Partition
    from pyedge.trainer.shards import reshard

    source = Checkpoint(find(checkpoint))
    if ranks is not None and sizes is None:
        partition = Partition.even(source.manifest.classes, ranks)
    elif sizes is not None and ranks is None:
        partition = Partition(_sizes(sizes))
    else:
        raise InvalidArgumentError("give --ranks or --sizes, one of them")
    with progress() as advance:
        reshard(source, out, partition, advance)
    _show(out, as_json)


@app.command("import")
def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="With checkpoint_gpu_0.pt, … of InsightFace's arcface_torch."
        ),
    ],
    out: OutOption,
    as_json: JsonOption = False,
) -> None:
    """Take over another trainer's checkpoint. Its pickles are read, never run."""
    from pyedge.trainer.arcface_torch import import_checkpoint

    with progress() as advance:
        import_checkpoint(folder, out, advance)
    _show(out, as_json)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidArgumentError(
            f"--sizes is {text!r}; expected whole numbers with commas between them"
        ) from None


def _show(path: Path, as_json: bool, verify: bool = False) -> None:
    from pyedge.trainer.shards import info as describe

    with progress() as advance:
        data = describe(path, verify, advance)
    if as_json:
        print_json(data)
        return
    rows = [
        [shard["file"], *(f"{number:,}" for number in shard["classes"]), _bytes(shard)]
        for shard in data["shards"]
    ]
    columns = ["shard", "first class", "end", "bytes"]
    out = console()
    out.print(table(f"{path}: step {data['step']}", columns, rows))
    network = data["network"]
    out.print(
        f"{network['name']}: {network['size']}x{network['size']} to {network['features']}; "
        f"{data['classes']:,} classes of {data['dim']}: {', '.join(data['tensors'])}"
    )
    verified = "; every digest is right" if data["verified"] else ""
    out.print(f"{quantity(data['bytes'], 'B')} in all{verified}")


def _bytes(shard: dict[str, Any]) -> str:
    return quantity(shard["bytes"], "B")
