"""Training as a whole: ranks agree with one, runs go on where they ended, failures are named."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.multiprocessing as mp
from faces import write_faces
from ranks import run_ranks

from pyedge.errors import CheckpointError, InvalidArgumentError, TrainingError
from pyedge.trainer import Group, checkpoint
from pyedge.trainer.config import TrainConfig
from pyedge.trainer.curve import read_log
from pyedge.trainer.data import Augmentation, Position
from pyedge.trainer.launch import TIMEOUT, _Ranks, launch
from pyedge.trainer.lock import locked
from pyedge.trainer.manifest import sealed
from pyedge.trainer.train import LOG, Trainer, learning_rate, load_data, train

PEOPLE, IMAGES = 6, 8


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_faces(tmp_path_factory.mktemp("faces"), PEOPLE, IMAGES)


def description(faces: str, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "data": (faces,),
        "backbone": "iresnet10",
        "width": 4,
        "size": 16,
        "features": 8,
        "batch": 8,
        "loss": "cosface",
        "loss_options": {"scale": 8.0, "margin": 0.1},
        "steps": 6,
        "lr": 0.02,
        "augmentation": Augmentation(shift=0.05, cutout=0.3),
    }
    return TrainConfig(**{**values, **changes})


def run_steps(config: TrainConfig, steps: int, dtype: torch.dtype) -> dict[str, Any]:
    """Losses of the first steps; gradients and weights of the last, those of this rank."""
    group = Group()
    batches, names = load_data(config, group)
    trainer = Trainer(config, names, 100, group, dtype)
    losses = []
    for _ in range(steps):
        position = Position(*divmod(trainer.step, batches.steps_per_epoch))
        images, labels = next(iter(batches.epoch(position)))
        losses.append(trainer.train_step(images, labels))
    gradients = {name: p.grad.clone() for name, p in trainer.backbone.named_parameters()}
    return {
        "losses": losses,
        "gradients": gradients,
        "centers": trainer.head.centers.detach(),
        "buffers": dict(trainer.backbone.named_buffers()),
    }


def test_ranks_agree_with_one(faces: str) -> None:
    """Losses, and the gradients of the network: statistics of batch norm are those of all ranks.

    In float32 the rounding of a network of fifty layers is more than 1e-6; there the ranks may be
    no farther from the float64 answer than one process is. (The head alone: test_trainer_head.)
    """
    config = description(faces, center_weight=0.01, triplet_weight=0.1, contrastive_weight=0.01)
    exact = run_steps(config, 1, torch.float64)
    rounded = run_steps(config, 1, torch.float32)
    for count in (2, 4):
        ranks = run_ranks(count, run_steps, config, 1, torch.float64)
        centers = torch.cat([rank["centers"] for rank in ranks])
        assert (centers - exact["centers"]).norm() <= 1e-12 * exact["centers"].norm()
        for rank in ranks:
            assert rank["losses"] == pytest.approx(exact["losses"], rel=1e-12)
            assert _error(rank, exact, "gradients") <= 1e-12
            assert _error(rank, exact, "buffers") <= 1e-12
        for rank in run_ranks(count, run_steps, config, 1, torch.float32):
            assert rank["losses"] == pytest.approx(exact["losses"], rel=1e-5)
            for key in ("gradients", "buffers"):
                assert _error(rank, exact, key) <= 3 * _error(rounded, exact, key)


def _error(one: dict[str, Any], other: dict[str, Any], key: str) -> float:
    """Of all tensors together: some gradients are 0 but for rounding."""
    pairs = [(one[key][name].double(), value.double()) for name, value in other[key].items()]
    error = torch.stack([(a - b).norm() for a, b in pairs]).norm()
    return float(error / torch.stack([b.norm() for _, b in pairs]).norm())


def resume(config: TrainConfig, run: str, start: int, stop: int) -> list[float]:
    """Goes on from the checkpoint of step `start`, in float64; losses up to step `stop`."""
    group = Group()
    batches, names = load_data(config, group)
    trainer = Trainer(config, names, 100, group, torch.float64)
    if start:
        trainer.load(Path(run) / f"step-{start:08}")
    losses = []
    while trainer.step < stop:
        position = Position(*divmod(trainer.step, batches.steps_per_epoch))
        images, labels = next(iter(batches.epoch(position)))
        losses.append(trainer.train_step(images, labels))
        if trainer.step == 5 and not start:
            trainer.save(Path(run))
    return losses


@pytest.mark.parametrize(("optimizer", "counts"), [("sgd", (1, 2, 4)), ("adamw", (1,))])
def test_resume_at_any_world_size(
    faces: str, tmp_path: Path, optimizer: str, counts: tuple[int, ...]
) -> None:
    """Twenty steps after the checkpoint are those of the run that was never stopped."""
    config = description(
        faces, optimizer=optimizer, lr=0.002, loss="a_softmax", loss_options={}, center_weight=0.01
    )
    straight = run_ranks(2, resume, config, str(tmp_path), 0, 25)[0]
    for count in counts:
        again = run_ranks(count, resume, config, str(tmp_path), 5, 25)
        for losses in again:
            assert losses == pytest.approx(straight[5:], rel=1e-12)


def begin(config: TrainConfig, dtype: torch.dtype) -> tuple[int, dict[str, Any]]:
    trainer = Trainer(config, load_data(config, Group())[1], 10, Group(), dtype)
    before = trainer.head.centers.detach().clone()
    taken = trainer.begin_from(Path(config.init))
    return taken, {
        "names": [trainer.names[label] for label in trainer.head.own],
        "before": before,
        "centers": trainer.head.centers.detach(),
        "network": trainer.backbone.state_dict(),
        "steps": (trainer.step, trainer.rows.steps),
    }


def test_begins_with_the_weights_of_another_run(faces: str, tmp_path: Path) -> None:
    """Of people known by name, over any number of ranks; the others begin anew."""
    first = train(description(faces, steps=2), tmp_path / "first").checkpoint
    source = checkpoint.Checkpoint(first)
    names = source.label_names()
    centers = source.rows(range(PEOPLE))["centers"]
    assert names is not None
    others = tmp_path / "others"
    others.mkdir()
    write_faces(others, 5, 2)
    for path in others.glob("Person[01]_*"):  # whom the first run has not seen
        path.rename(path.with_name(f"Some{path.name}"))
    config = description(str(others), init=str(first))
    for count in (1, 2, 4):
        results = run_ranks(count, begin, config, torch.float64)
        for taken, rank in results:
            assert taken == 3
            assert rank["steps"] == (0, 0)
            for name, value in source.backbone("network/").items():
                assert rank["network"][name].equal(value.to(rank["network"][name].dtype)), name
            for name, before, now in zip(
                rank["names"], rank["before"], rank["centers"], strict=True
            ):
                there = name in names
                assert now.equal(centers[names.index(name)].double() if there else before)


def test_init_of_a_run(faces: str, tmp_path: Path) -> None:
    """Named in the description beside the data; a run that has a checkpoint goes on from that."""
    train(description(faces, steps=2), tmp_path / "first")
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'data = ["{faces}"]\ninit = "first"\nbackbone = "iresnet10"\nwidth = 4\nsize = 16\n'
        "features = 8\nbatch = 8\nsteps = 1\nlr = 1e-9\n"
    )
    config = TrainConfig.from_toml(toml)
    result = train(config, tmp_path / "second")
    assert result.centers_taken == PEOPLE
    first, second = (
        checkpoint.Checkpoint(checkpoint.find(tmp_path / name)) for name in ("first", "second")
    )
    assert "init" not in second.manifest.config
    everybody = range(PEOPLE)
    torch.testing.assert_close(
        second.rows(everybody)["centers"], first.rows(everybody)["centers"], rtol=0, atol=1e-6
    )
    again = train(dataclasses.replace(config, steps=2), tmp_path / "second")
    assert again.centers_taken is None
    other = dataclasses.replace(config, features=4, init=str(tmp_path / "first"))
    with pytest.raises(CheckpointError, match=r"to 8 features.* expected .* 16 pixels to 4"):
        train(other, tmp_path / "third")
    with pytest.raises(CheckpointError, match="nowhere: is no checkpoint"):
        train(dataclasses.replace(config, init=str(tmp_path / "nowhere")), tmp_path / "third")


def hold(run: Path, taken: Any, release: Any) -> None:
    """Another training, which has the folder until it is told to end."""
    with locked(run, Group()):
        taken.set()
        release.wait(60)


def test_one_training_at_a_time_has_a_folder(faces: str, tmp_path: Path) -> None:
    config = description(faces, steps=1)
    context = mp.get_context("spawn")
    taken, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, taken, release))
    other.start()
    assert taken.wait(60)
    for ranks in (1, 2):
        with pytest.raises(CheckpointError, match=rf"another training .*\(process {other.pid} of"):
            launch(config, tmp_path, ranks)
    assert not checkpoint.steps(tmp_path)
    other.kill()  # whoever is killed keeps nothing
    other.join()
    result = launch(config, tmp_path, 2)
    assert result is not None
    assert result.finished
    run = tmp_path / "file"
    run.touch()
    with pytest.raises(CheckpointError, match="file: cannot be written: File exists"):
        launch(config, run, 1)


def test_run_to_the_end(faces: str, tmp_path: Path) -> None:
    config = description(faces, epochs=6, steps=0, checkpoint_every=10, keep=2)
    seen = []
    result = launch(config, tmp_path, 2, lambda *told: seen.append(told))
    assert result is not None
    assert result.finished
    assert result.steps == result.total_steps == 6 * (PEOPLE * IMAGES // 8)
    assert result.classes == PEOPLE
    assert result.accuracy > 0.5  # six colours, by lot 0.17
    assert seen[-1][1:] == (36, 36)
    assert [path.name for path in sorted(tmp_path.glob("step-*"))] == [
        "step-00000030",
        "step-00000036",
    ]
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert lines[-1]["step"] == 36
    assert lines[-1]["loss"] < 2.0
    # Once more: there is nothing left to do.
    assert launch(config, tmp_path, 1).steps == 36
    longer = dataclasses.replace(config, epochs=7)
    assert launch(longer, tmp_path, 1).steps == 42


def test_other_run_in_the_folder(faces: str, tmp_path: Path) -> None:
    config = description(faces, steps=1)
    train(config, tmp_path)
    for change in ({"features": 4}, {"loss": "arcface"}, {"seed": 1}, {"batch": 4}):
        with pytest.raises(CheckpointError, match=f"step-00000001: {next(iter(change))} is"):
            train(description(faces, **{"steps": 2, **change}), tmp_path)
    people = [path for path in Path(faces).glob("*") if "Person0" not in path.name]
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in people:
        (fewer / path.name).symlink_to(path)
    with pytest.raises(CheckpointError, match="6 classes of other names than the 5"):
        train(description(str(fewer), steps=2), tmp_path)


def test_loss_that_is_no_number(faces: str, tmp_path: Path) -> None:
    config = description(faces, steps=50, lr=1e12, warmup=0.0, clip=0.0, checkpoint_every=1)
    other = {"schedule": "constant", "loss": "softmax", "loss_options": {}}
    config = dataclasses.replace(config, **other)
    with pytest.raises(TrainingError, match=r"the loss of step \d+ is .*; the last checkpoint is"):
        launch(config, tmp_path, 2)
    assert checkpoint.latest(tmp_path) is not None
    with pytest.raises(TrainingError, match="learning rate of 1e\\+12"):
        train(config, tmp_path / "alone")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_rank_that_dies(faces: str, tmp_path: Path, number: signal.Signals) -> None:
    """It is named, the others end, and the last checkpoint is whole."""
    config = description(faces, steps=3000, checkpoint_every=5)
    killed: list[float] = []

    def kill(what: str, done: int, total: int) -> None:
        if done >= 7 and not killed:
            killed.append(time.monotonic())
            os.kill(_children()[1], number)

    with pytest.raises(TrainingError) as error:
        launch(config, tmp_path, 2, kill, timedelta(seconds=15))
    assert time.monotonic() - killed[0] < 30
    last = checkpoint.latest(tmp_path)
    assert str(last) in str(error.value)
    if number == signal.SIGKILL:
        assert "rank 1 of 2 was killed by SIGKILL" in str(error.value)
    else:
        assert "rank 1 of 2 does not answer" in str(error.value)
    assert not _children()
    # Another number of ranks takes it from there.
    steps = checkpoint.Checkpoint(last).manifest.step + 1
    assert launch(dataclasses.replace(config, steps=steps), tmp_path, 1).finished


def _children() -> list[int]:
    """Ranks that this process has started, in order; not those of `run_ranks`."""
    import multiprocessing

    return sorted(
        process.pid
        for process in multiprocessing.active_children()
        if process.pid is not None and process.name.startswith("rank")
    )


def test_interrupt(faces: str, tmp_path: Path) -> None:
    """One rank is asked to end: all make a checkpoint of the step, and the run goes on from it."""
    config = description(faces, steps=3000)
    asked = threading.Event()

    def ask(what: str, done: int, total: int) -> None:
        if done >= 3 and not asked.is_set():
            asked.set()
            os.kill(_children()[1], signal.SIGTERM)

    result = launch(config, tmp_path, 2, ask)
    assert not result.finished
    assert 3 <= result.steps < 3000
    assert checkpoint.latest(tmp_path).name == f"step-{result.steps:08}"
    assert read_log(tmp_path / LOG)[-1].step == result.steps  # however short it was


def test_ranks_that_cannot_be_started(
    faces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Mock(side_effect=OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    monkeypatch.setattr(mp.get_context("spawn").Process, "start", refused)
    with pytest.raises(TrainingError, match="rank 0 cannot be started: Too many open files"):
        launch(description(faces), tmp_path, 2)


LOST = {"error": "rank 0 is lost", "kind": "LostRankError"}


@pytest.mark.parametrize(
    ("told", "silent", "words"),
    [
        ({1: {"error": "disk full", "kind": "CheckpointError"}}, {0}, "disk full"),
        ({0: LOST, 1: {"error": "disk full", "kind": "CheckpointError"}}, set(), "disk full"),
        ({0: LOST}, {1}, "rank 1 of 2 does not answer"),
        ({0: LOST}, set(), "rank 1 of 2 was killed by SIGKILL"),
        ({}, {0}, "rank 1 of 2 was killed by SIGKILL"),  # and rank 0 waited for it
    ],
)
def test_the_rank_that_failed_is_blamed(
    told: dict[int, dict[str, str]], silent: set[int], words: str, tmp_path: Path
) -> None:
    ranks = _Ranks(TrainConfig(), tmp_path, 2, TIMEOUT)
    ranks._processes = [Mock(exitcode=-signal.SIGKILL)] * 2
    ranks._told = told
    with pytest.raises((CheckpointError, TrainingError), match=words):
        ranks._judge(silent)


def train_with_seed_of_rank(config: TrainConfig, run: Path) -> str:
    with pytest.raises(InvalidArgumentError) as error:
        train(dataclasses.replace(config, seed=Group().rank), run)
    return str(error.value)


def test_ranks_have_the_same_description(faces: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for error in run_ranks(2, train_with_seed_of_rank, description(faces), run):
        assert error.startswith("rank 1 has another description of the run")
    assert not run.exists()


def test_weights_that_are_no_numbers_are_not_saved(faces: str, tmp_path: Path) -> None:
    config = description(faces)
    batches, names = load_data(config, Group())
    trainer = Trainer(config, names, 100, Group())
    trainer.train_step(*next(iter(batches.epoch(Position(0, 0)))))
    saved = trainer.save(tmp_path)
    with torch.no_grad():
        trainer.head.centers[1, 1] = torch.nan
    trainer.step += 1
    with pytest.raises(TrainingError, match="the weights of step 2 are no numbers; a lower"):
        trainer.save(tmp_path)
    assert list(checkpoint.steps(tmp_path).values()) == [saved]


def test_checkpoint_that_leads_nowhere(faces: str, tmp_path: Path) -> None:
    """Its weights are numbers, but so large that the next loss is none: going on names it."""
    config = description(faces)
    names = load_data(config, Group())[1]
    trainer = Trainer(config, names, 100, Group())
    with torch.no_grad():
        for parameter in trainer.backbone.parameters():
            parameter *= 1e30
    last = trainer.save(tmp_path)
    with pytest.raises(TrainingError, match=rf"loss of step 0 is .*; or {last} is spoilt: remove"):
        train(config, tmp_path)


def test_checkpoint_of_another_step(faces: str, tmp_path: Path) -> None:
    config = description(faces, steps=1)
    train(config, tmp_path).checkpoint.rename(tmp_path / "step-00000007")
    with pytest.raises(CheckpointError, match="step-00000007: is of step 1; expected"):
        train(config, tmp_path)
    checkpoint.latest(tmp_path).rename(tmp_path / "step-00000001")
    manifest = tmp_path / "step-00000001" / "manifest.json"
    values = json.loads(manifest.read_text())
    del values["digest"]
    for wrong in ("1", [], None, -1, 2, 1.0, True):
        values["training"]["row_steps"] = wrong
        manifest.write_bytes(sealed(values))
        with pytest.raises(CheckpointError, match=r"training: row_steps is .*; expected a whole"):
            train(config, tmp_path)


def test_schedule() -> None:
    config = TrainConfig(lr=1.0, warmup=0.1)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    flat = TrainConfig(lr=1.0, warmup=0.0, schedule="constant")
    assert {learning_rate(flat, step, 100) for step in range(100)} == {1.0}


def test_description(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'data = ["faces"]\nloss = "arcface"\nloss_options = {margin = 0.3, monotone = true}\n'
        "[augmentation]\nflip = 0.0\ncutout_area = [0.1, 0.2]\n"
    )
    config = TrainConfig.from_toml(file)
    assert config.data == (str(tmp_path / "faces"),)
    assert config.margin(10).m2 == 0.3
    assert config.augmentation.cutout_area == (0.1, 0.2)
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert dataclasses.replace(again, data=config.data) == config
    for text, message in (
        ("loss = 3", "loss is 3; expected str"),
        ('loss = "l2"', "loss is 'l2'; expected softmax"),
        ("loss_options = {q = 1}", "arcface has no q; it has scale, margin, monotone"),
        ("lr = nan", "lr is nan; expected 0 or more"),
        ("batch = 0", "batch is 0; expected 1 or more"),
        ("ranks = 2", "unknown key 'ranks'"),
        ("sample_rate = 0.0", "sample_rate 0.0"),
        ("epochs = 0", "steps and epochs are 0"),
        ("augmentation = {flop = 1}", "unknown key 'flop'"),
        ("augmentation = {flip = 2}", "flip is 2"),
        ("data = [1]", "data is"),
        ("x =", "not TOML"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidArgumentError, match=message):
            TrainConfig.from_toml(file)
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        TrainConfig.from_toml(tmp_path / "none.toml")


def test_bad_runs(faces: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be shared evenly by 3 ranks"):
        launch(description(faces), tmp_path, 3)
    with pytest.raises(InvalidArgumentError, match="a batch of 64 from 48 samples"):
        launch(description(faces, batch=64), tmp_path, 1)
    with pytest.raises(InvalidArgumentError, match="not a folder"):
        launch(description(str(tmp_path / "none")), tmp_path, 1)
    with pytest.raises(InvalidArgumentError, match="ranks is 0"):
        launch(description(faces), tmp_path, 0)
    with pytest.raises(InvalidArgumentError, match=f"run: lies in {faces}, where the data is"):
        launch(description(faces), Path(faces) / "run", 1)
    with pytest.raises(InvalidArgumentError, match="is no path in UTF-8"):
        launch(description(faces), tmp_path / os.fsdecode(b"x\xff"), 1)
    person = Path(os.fsdecode(bytes(tmp_path) + b"/people/x\xff"))
    person.mkdir(parents=True)
    for path in Path(faces).iterdir():
        (person / path.name).symlink_to(path)
    with pytest.raises(InvalidArgumentError, match=r"'x\\udcff' is no text in UTF-8"):
        launch(description(str(person.parent)), tmp_path / "run", 1)
    assert not (tmp_path / "run").exists()
