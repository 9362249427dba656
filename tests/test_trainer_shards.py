"""Shards merged and split: rows keep their bytes, files of the same shards are the same."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import CLASSES, DIM, NAMES, checkpoint_of, manifest, save_alone, tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from pyedge.cli.app import app
from pyedge.errors import CheckpointError, InvalidArgumentError
from pyedge.trainer import tensor_file
from pyedge.trainer.checkpoint import Checkpoint, save
from pyedge.trainer.distributed import Group
from pyedge.trainer.partition import Partition
from pyedge.trainer.shards import info, merge, reshard

SIZES = (5, 0, 11, 7)


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["shards", *(str(argument) for argument in arguments)])


def cli_json(*arguments: object) -> Any:
    result = cli(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def split(source: Path, target: Path, sizes: tuple[int, ...]) -> Path:
    reshard(Checkpoint(source), target, Partition(sizes))
    return target


def test_merge_split_merge_is_bit_equal(tmp_path: Path) -> None:
    shards = checkpoint_of(tmp_path, SIZES)
    merge(shards, tmp_path / "one")
    merge(split(tmp_path / "one", tmp_path / "again", SIZES), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "again") == contents(shards)
    # And the same as from the trainer.
    assert contents(tmp_path / "one") == contents(tmp_path / "run" / "step-00000120")


def sums_to_classes() -> st.SearchStrategy[tuple[int, ...]]:
    cuts = st.lists(st.integers(0, CLASSES), max_size=6).map(sorted)
    return cuts.map(lambda c: tuple(b - a for a, b in zip([0, *c], [*c, CLASSES], strict=True)))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=sums_to_classes(), chunk=st.sampled_from([8, 20, 64, 8 << 20]))
def test_any_shards_to_any_other(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, ...], chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    shards = checkpoint_of(folder, SIZES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_file, "CHUNK", chunk)
        found = Checkpoint(split(shards, folder / "other", sizes))
    found.verify()
    assert found.manifest.partition == Partition(sizes)
    for rank in range(len(sizes)):
        classes = found.manifest.partition.range(rank)
        rows = found.rows(classes)
        assert all(torch.equal(rows[name], t) for name, t in tensors(classes).items())
    merge(found.path, folder / "merged")
    assert contents(folder / "merged") == contents(folder / "run" / "step-00000120")


def test_memory_does_not_grow_with_the_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, dim = 40_000, 100
    described = manifest(Partition((classes,)), dim=dim)
    path = save(tmp_path, Group(), described, {}, {"centers": torch.zeros(classes, dim)})
    monkeypatch.setattr(tensor_file, "CHUNK", 1 << 18)
    checkpoint = Checkpoint(path)
    tracemalloc.start()
    reshard(checkpoint, tmp_path / "split", Partition.even(classes, 3))
    merge(tmp_path / "split", tmp_path / "merged")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20 < (path / "shard-00000-of-00001.safetensors").stat().st_size / 4


def test_info(tmp_path: Path) -> None:
    shards = checkpoint_of(tmp_path, SIZES)
    found = info(shards)
    assert (found["step"], found["world_size"], found["classes"], found["dim"]) == (120, 4, 23, 6)
    assert [shard["classes"] for shard in found["shards"]] == [[0, 5], [5, 5], [5, 16], [16, 23]]
    assert found["tensors"]["momentum"] == {"dtype": "F32", "shape": [CLASSES, DIM]}
    assert found == cli_json("info", shards)
    assert cli_json("info", "--verify", shards)["verified"]
    shown = cli("info", shards).stdout
    assert "shard-00002-of-00004.safetensors" in shown
    assert "mobilefacenet: 32x32 to 6; 23 classes of 6: centers, momentum, seen" in shown


def test_command_line(tmp_path: Path) -> None:
    shards = checkpoint_of(tmp_path, SIZES)
    merged = cli_json("merge", shards, "-o", tmp_path / "merged")
    assert merged["world_size"] == 1
    again = cli_json("split", tmp_path / "merged", "--sizes", "5,0,11,7", "-o", tmp_path / "again")
    assert again["world_size"] == 4
    assert contents(tmp_path / "again") == contents(shards)
    even = cli_json("split", tmp_path / "run", "--ranks", 3, "-o", tmp_path / "even")
    assert [shard["classes"] for shard in even["shards"]] == [[0, 8], [8, 16], [16, 23]]
    assert Checkpoint(tmp_path / "even").label_names() == NAMES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["split", "CHECKPOINT", "-o", "OUT"], "give --ranks or --sizes"),
        (["split", "CHECKPOINT", "-o", "OUT", "--ranks", "2", "--sizes", "9,14"], "one of them"),
        (["split", "CHECKPOINT", "-o", "OUT", "--sizes", "9,x"], "--sizes is '9,x'; expected"),
        (
            ["split", "CHECKPOINT", "-o", "OUT", "--sizes", "9,13"],
            "have 22 classes",
        ),
        (["split", "CHECKPOINT", "-o", "OUT", "--sizes", "-1,24"], "sizes of the shards are [-1"),
        (["split", "CHECKPOINT", "-o", "OUT", "--ranks", "0"], "--ranks"),
        (["split", "CHECKPOINT", "-o", "CHECKPOINT", "--ranks", "2"], "exists already"),
        (["merge", "CHECKPOINT", "-o", "OUT/in/nowhere"], "OUT/in/.nowhere.tmp: cannot be made"),
        (["merge", "OUT", "-o", "OUT"], "OUT: is no checkpoint: expected manifest.json or step-"),
        (["info", "OUT"], "OUT: is no checkpoint"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    path = checkpoint_of(tmp_path, SIZES)
    before = contents(path)
    places = {"CHECKPOINT": path}
    given_arguments = [str(places.get(a, a)).replace("OUT", f"{tmp_path}/OUT") for a in arguments]
    result = cli(*given_arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words.replace("OUT", f"{tmp_path}/OUT") in result.stderr
    assert not (tmp_path / "OUT").exists()
    assert contents(path) == before


def test_damage_is_found_before_anything_is_written(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path, SIZES)
    file = path / "shard-00003-of-00004.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"shard-00003-of-00004\.safetensors: has SHA-256"):
        merge(path, tmp_path / "out")
    result = cli("info", "--verify", path)
    assert result.exit_code == 2
    assert "shard-00003-of-00004.safetensors: has SHA-256" in result.stderr
    assert not list(tmp_path.glob("*out*"))


def test_other_classes_are_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(save_alone(tmp_path))
    with pytest.raises(InvalidArgumentError, match="24 classes together; expected 23"):
        reshard(checkpoint, tmp_path / "out", Partition((24,)))
    with pytest.raises(InvalidArgumentError, match="expected a range within 23"):
        checkpoint.rows(range(20, 24))
