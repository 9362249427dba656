"""Sharded sets: packed from folders or indexed, whole or not at all, and trained on."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faces import write_faces
from ranks import run_ranks
from test_cli import assert_refused, cli, cli_json
from test_trainer_data import picture, png, save, tar
from test_trainer_train import description, resume

from pyedge.errors import InvalidArgumentError, PyEdgeError, TrainingError
from pyedge.trainer.data import (
    FaceFolder,
    Packed,
    Shards,
    held_out,
    index_shards,
    pack,
    write_shards,
)
from pyedge.trainer.launch import launch

PEOPLE, IMAGES = 12, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_faces(tmp_path_factory.mktemp("faces"), PEOPLE, IMAGES))


@pytest.fixture(scope="module")
def faces(folder: Path) -> FaceFolder:
    return FaceFolder.scan(folder)


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards."""
    out = tmp_path_factory.mktemp("packed") / "set"
    result = cli("pack", "write", folder, "-o", out, "--images-per-shard", 13, "--workers", 0)
    assert result.exit_code == 0, result.output
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# From the command line


def test_write(folder: Path, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    options = ("--images-per-shard", 13, "--workers", 2)
    found = cli_json("pack", "write", folder, "-o", out, *options)
    assert contents(out) == contents(packed), "the same with any number of workers"
    assert sorted(contents(out)) == [
        "names.json",
        *(f"shard-00000{number}.tar" for number in range(6)),
        "shards.json",
    ]
    assert (found["shards"], found["samples"], found["classes"]) == (6, PEOPLE * IMAGES, PEOPLE)
    assert found["bytes"] == sum(path.stat().st_size for path in out.glob("*.tar"))
    assert found["images_per_second"] == pytest.approx(found["samples"] / found["seconds"])
    assert (found["excluded"], found["held_out"], found["broken"]) == (0, 0, [])
    other = cli("pack", "write", folder, "-o", tmp_path / "other", *options, "--seed", 1)
    assert "│      6 │     72 │      12 │" in other.stdout
    assert contents(tmp_path / "other")["shard-000000.tar"] != contents(out)["shard-000000.tar"]


def test_people_that_are_left_out(folder: Path, tmp_path: Path) -> None:
    exclude = tmp_path / "pairs.txt"
    exclude.write_text("﻿Person3\n\n  Person10 \nSomebody_Else\n", encoding="utf-8")
    options = ("--exclude", exclude, "--hold-out", 0.3, "--workers", 0)
    found = cli_json("pack", "write", folder, "-o", tmp_path / "set", *options)
    names = {f"Person{number}" for number in range(PEOPLE)} - {"Person3", "Person10"}
    kept = {name for name in names if not held_out(name, 0.3)}
    assert len(kept) < len(names)
    shards = Shards.open(tmp_path / "set")
    assert set(shards.names()) == kept
    assert (found["excluded"], found["held_out"]) == (2, len(names) - len(kept))
    theirs = {path.read_bytes() for name in kept for path in folder.glob(f"{name}_*")}
    assert {sample.data for n in range(found["shards"]) for sample in shards.read(n)} == theirs
    text = cli("pack", "write", folder, "-o", tmp_path / "again", *options).stdout
    assert f"left out: 2 of the 3 people in {exclude}" in text
    assert f"held out: {len(names) - len(kept)} people" in text
    save(tmp_path / "few" / "Ann_1.png", picture(1))
    few = cli_json("pack", "write", tmp_path / "few", folder, "--min-images", 2, *options[-2:],
                   "-o", tmp_path / "enough")  # fmt: skip
    assert few["classes"] == PEOPLE


def test_index(tmp_path: Path) -> None:
    tar(tmp_path / "b.tar", {"7.png": png(3), "7.json": b'{"label": 2}'})
    tar(tmp_path / "a.tar", {"0.png": png(1), "0.cls": b"1", "1.png": png(2), "1.cls": b"0"})
    found = cli_json("pack", "index", tmp_path, "--workers", 2)
    assert (found["shards"], found["samples"], found["classes"]) == (2, 3, 3)
    assert Shards.open(tmp_path).names() == ("0", "1", "2")
    assert cli_json("pack", "index", tmp_path, "--classes", 5)["classes"] == 5
    (tmp_path / "names.txt").write_text("Zoë\nAnn\nBob\nCy\n")
    assert cli_json("pack", "index", tmp_path, "--names", tmp_path / "names.txt")["classes"] == 4
    assert Shards.open(tmp_path).names() == ("Zoë", "Ann", "Bob", "Cy")
    text = cli("pack", "index", tmp_path).stdout
    assert "│      2 │      3 │       4 │" in text, "by the names that are there now"


def test_refused(folder: Path, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("Zoë".encode("latin-1"))
    (tmp_path / "twice.txt").write_text("Ann\nAnn\n")
    (tmp_path / "all.txt").write_text("\n".join(f"Person{number}" for number in range(PEOPLE)))
    out = ["-o", tmp_path / "out"]
    for arguments, words in (
        (["write", tmp_path / "empty", *out], "no images in this folder"),
        (["write", tmp_path / "none", *out], "not a folder"),
        (["write", folder, "-o", packed], "not empty; expected a new folder for the shards"),
        (["write", folder, *out, "--hold-out", 1.5], "expected in [0, 1)"),
        (["write", folder, *out, "--min-images", 7], "none of 12 identities has 7 images"),
        (["write", folder, *out, "--exclude", tmp_path / "none"], "cannot be read"),
        (["write", folder, *out, "--exclude", tmp_path / "blank.txt"], "no names; expected one"),
        (["write", folder, *out, "--exclude", tmp_path / "latin.txt"], "no text in UTF-8"),
        (["write", folder, *out, "--exclude", tmp_path / "all.txt"], "12 identities are excluded"),
        (["index", tmp_path / "empty"], "no shards (*.tar) in this folder"),
        (["index", packed, "--classes", 5], "12 names for 5 classes"),
        (["index", packed, "--names", tmp_path / "twice.txt"], "'Ann' is there twice"),
    ):
        before = contents(packed)
        assert_refused(cli("pack", *arguments), words)
        assert contents(packed) == before
    assert not (tmp_path / "out").exists()


def test_train_on_a_packed_set(packed: Path, tmp_path: Path) -> None:
    """The same losses with one rank and two."""
    run = tmp_path / "run.toml"
    run.write_text(
        'backbone = "iresnet10"\nwidth = 4\nsize = 16\nfeatures = 8\nbatch = 8\nsteps = 12\n'
        'lanes = 4\nshuffle_buffer = 10\nloss = "cosface"\n'
        "loss_options = {scale = 8.0, margin = 0.1}\n"
    )
    found = [
        cli_json("train", run, "--data", packed, "--out", tmp_path / f"{n}", "--ranks", n)
        for n in (1, 2)
    ]
    assert [result["steps"] for result in found] == [12, 12]
    assert found[0]["classes"] == PEOPLE
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-4)
    here = ["--data", packed, "--out", tmp_path / "1"]
    for options, words in (
        (["--set", "shuffle_buffer = 11"], "shuffle_buffer is 10 there and 11 here"),
        (["--set", "lanes = 2"], "lanes is 4 there and 2 here"),
        (["--set", "lanes = 3"], "a global batch of 8 from 3 lanes; expected a multiple of 3"),
        (["--set", "lanes = 0"], "lanes is 0; expected 1 or more"),
        (["--set", "shuffle_buffer = 0"], "shuffle_buffer is 0; expected 1 or more"),
        (["--data", tmp_path], "2 folders, of which one holds shards; expected it alone"),
    ):
        assert_refused(cli("train", run, *here, *options), words)


def test_going_on_at_another_world_size(packed: Path, tmp_path: Path) -> None:
    """From the middle of an epoch, exactly: see test_trainer_train."""
    config = description(str(packed), lanes=4, shuffle_buffer=10, lr=0.002)
    straight = run_ranks(2, resume, config, str(tmp_path), 0, 15)[0]
    for losses in run_ranks(4, resume, config, str(tmp_path), 5, 15):
        assert losses == pytest.approx(straight[5:], rel=1e-12)


# Sets that are not finished


def assert_unfinished(out: Path, packed: Path, shards: int) -> None:
    """So many whole shards, and nothing that looks like a set."""
    there = contents(out)
    assert len(there) == shards + 2
    assert "unfinished.json" in there
    whole = contents(packed)
    assert all(there[name] == whole[name] for name in there if name != "unfinished.json")
    with pytest.raises(
        InvalidArgumentError, match=r"shards\.json: no such file; this is an unfinished"
    ):
        Shards.open(out)
    with pytest.raises(
        InvalidArgumentError, match="this is an unfinished set, and the command that began"
    ):
        index_shards(out)
    with pytest.raises(
        InvalidArgumentError, match="this is an unfinished set, and the command that began"
    ):
        launch(description(str(out)), out / "run")


def finish(faces: FaceFolder, out: Path, packed: Path) -> Packed:
    """The same call once more gives the same set as one that was never stopped."""
    result = write_shards(faces, out, 13)
    assert contents(out) == contents(packed)
    return result


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupt(faces: FaceFolder, packed: Path, tmp_path: Path, workers: int) -> None:
    before = set(multiprocessing.active_children())
    out = tmp_path / "out"

    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("packing", 30):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        write_shards(faces, out, 13, workers=workers, progress=interrupt)
    assert set(multiprocessing.active_children()) == before
    assert_unfinished(out, packed, 2)
    (out / ".shard-000002.tar.0123.tmp").write_bytes(b"of a process that was killed")
    told: list[tuple[str, int, int]] = []
    left = PEOPLE * IMAGES - 2 * 13
    assert write_shards(faces, out, 13, progress=lambda *t: told.append(t)).written == left
    assert contents(out) == contents(packed)
    assert told[-1] == ("packing", left, left)
    size = sum((packed / f"shard-00000{number}.tar").stat().st_size for number in range(2))
    assert ("reading shards", size, size) in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_command(
    folder: Path,
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    out = tmp_path / "out"
    command = ("pack", "write", folder, "-o", out, "--images-per-shard", 13, "--workers", 0)
    with monkeypatch.context() as patch:
        patch.setattr(pack.Meter, "add", stop_at(42, number))
        result = cli(*command)
    assert result.exit_code == 130
    assert result.stderr == (
        f"error: interrupted; {out} is unfinished, and the same command goes on\n"
    )
    assert_unfinished(out, packed, 3)
    assert_refused(cli(*command, "--seed", 1), "an unfinished set of other images or options")
    assert cli(*command).exit_code == 0
    assert contents(out) == contents(packed)


KILLED = """
import os, signal, sys
from pyedge.trainer.data import FaceFolder, write_shards
def kill(what, done, total):
    if done == 30:
        os.kill(os.getpid(), signal.SIGKILL)
write_shards(FaceFolder.scan(sys.argv[1]), sys.argv[2], 13, workers=2, progress=kill)
"""


def test_killed(faces: FaceFolder, folder: Path, packed: Path, tmp_path: Path) -> None:
    """Its workers end too: else they would hold the pipe, and the wait for its end."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(folder), str(out)]
    ended = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(out.glob(".shard-000002.tar.*.tmp"))) == 1
    assert finish(faces, out, packed).written == PEOPLE * IMAGES - 2 * 13


def stop_at(call: int, number: signal.Signals = signal.SIGINT) -> Callable[..., None]:
    """A `Meter.add` whose so-manyth call brings a signal."""
    calls, add = itertools.count(1), pack.Meter.add

    def interrupted(meter: pack.Meter, count: int) -> None:
        if next(calls) == call:
            signal.raise_signal(number)
        add(meter, count)

    return interrupted


def test_interrupted_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar(tmp_path / "a.tar", {"0.png": png(1), "0.cls": b"1"})
    cli("pack", "index", tmp_path)
    before = contents(tmp_path)
    tar(tmp_path / "b.tar", {"1.png": png(1), "1.cls": b"7"})
    monkeypatch.setattr(pack.Meter, "add", stop_at(3))
    result = cli("pack", "index", tmp_path, "--workers", 0)
    assert result.exit_code == 130
    assert result.stderr == f"error: interrupted; {tmp_path} is as it was\n"
    assert {**contents(tmp_path), **before} == contents(tmp_path)


@pytest.mark.parametrize("files", [0, 1, 2, 4, 8])
def test_disk_that_fills(
    faces: FaceFolder,
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: int,
) -> None:
    """There is room for so many files: the mark, the names, shards; the index comes last."""
    room = itertools.count()
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if next(room) >= files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(PyEdgeError, match=r"/[a-z].*: cannot be written: No space left") as e:
            write_shards(faces, out, 13)
    assert len(contents(out)) == files
    if files >= 2:
        assert_unfinished(out, packed, files - 2)
        assert f"{out} is unfinished, and the same command goes on" in str(e.value)
    finish(faces, out, packed)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images(workers: int, tmp_path: Path) -> None:
    folder, out = tmp_path / "faces", tmp_path / "out"
    for number in range(6):
        save(folder / "Ann" / f"{number}.jpg", picture(number))
        save(folder / "Bob" / f"{number}.png", picture(number))
    whole = (folder / "Ann" / "3.jpg").read_bytes()
    (folder / "Ann" / "3.jpg").write_bytes(whole[: len(whole) // 2])
    save(folder / "Bob" / "2.png", np.zeros((8, 9, 3), np.uint8))
    command = ("pack", "write", folder, "-o", out, "--images-per-shard", 5, "--workers", workers)
    result = cli(*command)
    assert_refused(result, "the same command goes on with a whole image in its place, or --skip-b")
    assert "Ann/3.jpg: truncated JPEG" in result.stderr or "Bob/2.png: 9x8 p" in result.stderr
    with pytest.raises(InvalidArgumentError, match="unfinished"):
        Shards.open(out)
    found = cli_json(*command, "--skip-broken")
    assert found["samples"] == 10
    assert sorted(reason.partition(";")[0] for reason in found["broken"]) == [
        f"{folder}/Ann/3.jpg: truncated JPEG: its end marker is missing",
        f"{folder}/Bob/2.png: 9x8 pixels",
    ]
    shards = Shards.open(out)
    samples = [sample for number in range(3) for sample in shards.read(number)]
    assert [sample.index for sample in samples] == list(range(10))
    text = cli(*command[:3], "-o", tmp_path / "new", "--skip-broken").stdout
    assert f"left out: {folder}/Ann/3.jpg: truncated JPEG" in text


def test_damaged_shard_of_an_unfinished_set(
    faces: FaceFolder, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pack.Meter, "add", stop_at(40))
        with pytest.raises(KeyboardInterrupt):
            write_shards(faces, out, 13)
    damaged = out / "shard-000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:4000])
    with pytest.raises(TrainingError, match=r"shard-000001\.tar: .*; a damaged shard that is del"):
        write_shards(faces, out, 13)
    damaged.unlink()
    assert finish(faces, out, packed).written == PEOPLE * IMAGES - 13


def test_write_refuses(faces: FaceFolder, tmp_path: Path) -> None:
    for options in ({"images_per_shard": 0}, {"seed": -1}):
        with pytest.raises(InvalidArgumentError, match="expected at least 1 and 0"):
            write_shards(faces, tmp_path / "out", **options)
    save(tmp_path / "faces" / os.fsdecode(b"Zo\xeb") / "1.png", picture(1))
    with pytest.raises(InvalidArgumentError, match=r"'Zo\\udceb' is no text in UTF-8"):
        write_shards(FaceFolder.scan(tmp_path / "faces"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidArgumentError, match="cannot be made"):
        write_shards(faces, tmp_path / "file")


def test_index_refuses(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"0.png": png(1), "0.cls": b"2"})
    with pytest.raises(TrainingError, match=r"0\.cls: label 2; expected 0 to 1"):
        index_shards(tmp_path, names=["Ann", "Bob"])
    with pytest.raises(InvalidArgumentError, match="classes is 0"):
        index_shards(tmp_path, classes=0)
    os.mkfifo(tmp_path / "b.tar")
    with pytest.raises(TrainingError, match=r"b\.tar: not a file"):
        index_shards(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "b.tar"]


def test_shards_without_an_index(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"0.png": png(1), "0.cls": b"0"})
    with pytest.raises(
        InvalidArgumentError, match=r"no images .*`pyedge pack index` makes its tar"
    ):
        launch(description(str(tmp_path)), tmp_path / "run")
    with pytest.raises(InvalidArgumentError, match="no such file; `pyedge pack index` writes it"):
        Shards.open(tmp_path)
