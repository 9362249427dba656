"""`pyedge train`: a network from folders of faces, over ranks; or the plan of a run."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyedge.cli.output import JsonOption, console, print_json, progress
from pyedge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pyedge.trainer.config import TrainConfig

_PLAN_BATCH = 64  # images of a rank, where a plan is not told


def train(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG.toml]", help="The run; options override its keys."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="RUN", help="Folder of checkpoints, log and curve."),
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Processes, or ranks of the plan.")] = 1,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Aligned crops of 112x112: a folder for each identity, or files named "
            "person_number; or a folder of shards. May be given repeatedly.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT", help="Begin with the weights of another run, or of an import."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="mobilefacenet, mbf, mbf_large, or iresnet10, 18, 34, 50, 100."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="softmax, normface, l_softmax, a_softmax, cosface, arcface, combined or adacos."
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Images of a step, over all ranks; of a plan, by default 64 a rank."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.")] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other key of the run, as in TOML."),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Train nothing: memory, traffic and operations of a run."),
    ] = False,
    classes: Annotated[int | None, typer.Option(help="Of the plan.")] = None,
    dim: Annotated[int | None, typer.Option(help="Length of the feature, of the plan.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a face network: data-parallel backbone, class centres split over the ranks.

    Goes on from the last checkpoint in RUN, also with another number of ranks. Under torchrun each
    process is a rank. Interrupted, it leaves a checkpoint.
    """
    given: dict[str, Any] = {
        "init": init,
        "backbone": backbone,
        "loss": loss,
        "batch": batch,
        "epochs": epochs,
        "lr": lr,
    }
    given |= {"seed": seed, "data": [str(folder) for folder in data] if data else None}
    described = _config(config, {k: v for k, v in given.items() if v is not None}, set_ or [])
    if plan:
        _plan(described, classes, dim, ranks, batch, as_json)
        return
    if classes is not None or dim is not None:
        raise InvalidArgumentError("--classes and --dim are of --plan; a run has those of its data")
    if out is None:
        raise InvalidArgumentError("--out is missing: the folder for checkpoints, log and curve")
    if not described.data:
        raise InvalidArgumentError("--data is missing: a folder of faces")
    from pyedge.trainer.curve import draw_curve, read_log
    from pyedge.trainer.launch import launch
    from pyedge.trainer.memory import keep_freed_memory
    from pyedge.trainer.train import LOG

    keep_freed_memory()  # where this process is a rank itself
    with progress() as advance:
        result = launch(described, out, ranks, advance)
    if result is None:  # another rank speaks
        return
    draw_curve(read_log(out / LOG), out / "curve.png")
    if as_json:
        print_json({**asdict(result), "curve": out / "curve.png"})
        return
    screen = console()
    done = "trained" if result.finished else "interrupted; the same command goes on"
    screen.print(
        f"{result.steps} of {result.total_steps} steps over {result.classes} classes {done}: "
        f"{result.seconds:.0f} s, {result.images_per_second:.0f} images/s"
    )
    if result.centers_taken is not None:
        taken = f"{result.centers_taken} of {result.classes}"
        screen.print(f"began with the network of {described.init} and {taken} class centres")
    screen.print(f"loss {result.loss:.3f}, accuracy {result.accuracy:.1%} (training, last epoch)")
    screen.print(f"checkpoint: {result.checkpoint}\ncurve: {out / 'curve.png'}")


def _config(file: Path | None, given: dict[str, Any], assignments: list[str]) -> TrainConfig:
    import tomllib

    from pyedge.trainer.config import TrainConfig

    for text in assignments:
        try:
            given |= tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidArgumentError(
                f'--set {text}: {error}; expected KEY=VALUE as in TOML: texts in "quotes"'
            ) from None
    base = TrainConfig() if file is None else TrainConfig.from_toml(file)
    asked = TrainConfig.from_dict(given)
    names = [f.name for f in fields(TrainConfig) if f.name in given]
    return replace(base, **{name: getattr(asked, name) for name in names})


def _plan(
    config: TrainConfig,
    classes: int | None,
    dim: int | None,
    ranks: int,
    batch: int | None,
    as_json: bool,
) -> None:
    from pyedge.trainer.data.sampler import rank_batch
    from pyedge.trainer.plan import plan, plan_table

    if classes is None:
        raise InvalidArgumentError("--classes is missing: how many people the plan is for")
    made = plan(
        classes,
        dim or config.features,
        ranks,
        _PLAN_BATCH if batch is None else rank_batch(batch, ranks),
        config.backbone,
        config.optimizer,
        config.sample_rate,
        config.precision,
        sync_batch_norm=config.sync_batch_norm,
        keep_logits=config.keep_logits,
    )
    if as_json:
        print_json(made.to_dict())
    else:
        console().print(plan_table(made))
