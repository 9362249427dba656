"""Checkpoints: whole or not at all, for any number of ranks, and what is wrong is named."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from checkpoints import CLASSES, DIM, NAMES, backbone, checkpoint_of, manifest, save_alone, tensors
from ranks import run_ranks

from pyedge.errors import CheckpointError, InvalidArgumentError, LostRankError
from pyedge.trainer import tensor_file
from pyedge.trainer.checkpoint import Checkpoint, find, latest, save, steps
from pyedge.trainer.distributed import Group
from pyedge.trainer.manifest import MANIFEST, Manifest, sealed
from pyedge.trainer.partition import Partition

SIZES = (5, 0, 11, 7)
SECOND = "shard-00002-of-00004.safetensors"


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    path = save_alone(tmp_path / "run", label_names=NAMES)
    checkpoint = Checkpoint(path)
    assert_same(checkpoint.rows(range(CLASSES)), tensors(range(CLASSES)))
    assert_same(checkpoint.backbone(), backbone())
    assert set(checkpoint.backbone("margin/")) == {"empty"}
    assert checkpoint.label_names() == NAMES
    given = manifest(Partition((CLASSES,)))
    assert checkpoint.manifest.training == given.training
    assert checkpoint.manifest.network == given.network
    assert Checkpoint(save_alone(tmp_path / "unnamed")).label_names() is None
    # Other programs read the files too.
    assert_same(safetensors.torch.load_file(path / "backbone.safetensors"), backbone())
    for name, digest in checkpoint.manifest.digests.items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest


def test_progress_counts_bytes(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = save_alone(tmp_path / "run", progress=lambda *state: told.append(state))
    assert {what.split()[0] for what, _, _ in told} == {"saving"}
    told.clear()
    Checkpoint(path).verify(progress=lambda *state: told.append(state))
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert told[0][1:] == (0, size)
    assert told[-1][1:] == (size, size)


@pytest.mark.parametrize(
    "classes", [range(0, 5), range(3, 9), range(0, CLASSES), range(16, 23), range(4, 4)], ids=str
)
def test_rows_come_from_whichever_shards_have_them(tmp_path: Path, classes: range) -> None:
    checkpoint = Checkpoint(checkpoint_of(tmp_path, SIZES))
    assert_same(checkpoint.rows(classes), tensors(classes))


def test_a_rank_reads_only_the_files_of_its_rows(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path, SIZES)
    flip_last_byte(path / SECOND)
    checkpoint = Checkpoint(path)
    assert_same(checkpoint.rows(range(5)), tensors(range(5)))
    assert_same(checkpoint.rows(range(16, 23)), tensors(range(16, 23)))
    with pytest.raises(CheckpointError, match=rf"{SECOND}: has SHA-256 .* damaged"):
        checkpoint.rows(range(4, 6))
    Checkpoint(path, verify=False).rows(range(4, 6))


def flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def save_as_rank(run: Path, sizes: tuple[int, ...], step: int, limited: int | None) -> str:
    """Saves, on rank `limited` with no room for a file; returns the error."""
    group, partition = Group(), Partition(sizes)
    shard = tensors(partition.range(group.rank))
    with file_limit(64 if group.rank == limited else resource.RLIM_INFINITY):
        try:
            save(run, group, manifest(partition, step), backbone(), shard)
        except (CheckpointError, LostRankError) as error:
            return str(error)
    return ""


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """The system refuses files larger than this, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_ranks_save_together_and_fail_together(tmp_path: Path) -> None:
    sizes = (9, 14)
    assert run_ranks(2, save_as_rank, tmp_path, sizes, 10, None) == ["", ""]
    checkpoint = Checkpoint(tmp_path / "step-00000010")
    assert checkpoint.manifest.partition == Partition(sizes)
    assert_same(checkpoint.rows(range(CLASSES)), tensors(range(CLASSES)))
    before = contents(tmp_path)
    of_lead, of_other = run_ranks(2, save_as_rank, tmp_path, sizes, 20, 1)
    assert "not saved: rank 1 failed" in of_lead
    assert "shard-00001-of-00002.safetensors: cannot be written: File too large" in of_other
    of_lead, of_other = run_ranks(2, save_as_rank, tmp_path, sizes, 20, 0)
    assert "cannot be written: File too large" in of_lead
    assert "not saved: rank 0 failed" in of_other
    assert contents(tmp_path) == before
    assert run_ranks(2, save_as_rank, tmp_path, sizes, 20, None) == ["", ""]


def fail_as_rank(run: Path, failing: int) -> str:
    """Saves; on one rank memory is short."""
    group = Group()
    partition = Partition((9, 14))
    with pytest.MonkeyPatch.context() as patch:
        if group.rank == failing:
            patch.setattr(tensor_file, "write_tensors", Mock(side_effect=MemoryError("short")))
        try:
            shard = tensors(partition.range(group.rank))
            save(run, group, manifest(partition, 10), backbone(), shard)
        except (LostRankError, MemoryError) as error:
            return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("failing", [0, 1])
def test_ranks_fail_together_whatever_it_is(tmp_path: Path, failing: int) -> None:
    errors = run_ranks(2, fail_as_rank, tmp_path, failing)
    assert errors.pop(failing) == "MemoryError: short"
    assert f"not saved: rank {failing} failed" in errors[0]
    assert not list(tmp_path.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("room", [0, 8, 300, 900, 1500, 2200])
def test_disk_that_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    save_alone(tmp_path, 10)
    before = contents(tmp_path)
    write = tensor_file.Output.write
    left = room

    def limited(self: tensor_file.Output, data: bytes | memoryview) -> None:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file.Output, "write", limited)
        with pytest.raises(CheckpointError, match=r"/[a-z].*: cannot be written: No space left"):
            save_alone(tmp_path, 20, label_names=NAMES)
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010"]
    assert latest(tmp_path) == tmp_path / "step-00000010"


KILLED = """
import os, signal, sys
from pathlib import Path
from checkpoints import save_alone
from pyedge.trainer import tensor_file
write = tensor_file.Output.write
def killed(self, data):
    if len(data) > 300:
        self._file.write(data[:100])
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, data)
tensor_file.Output.write = killed
save_alone(Path(sys.argv[1]), 20)
"""


def test_save_that_is_killed(tmp_path: Path) -> None:
    save_alone(tmp_path, 10)
    before = contents(tmp_path)
    folder = Path(__file__).parent
    result = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=folder, check=False)
    assert result.returncode == -signal.SIGKILL
    assert contents(tmp_path).keys() - before.keys(), "the kill came before anything was written"
    assert latest(tmp_path) == tmp_path / "step-00000010"
    save_alone(tmp_path, 30)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000010", "step-00000030"]


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 4):
        save_alone(tmp_path, step)
    (tmp_path / "step-00000009").mkdir()  # no manifest: no checkpoint
    assert list(steps(tmp_path)) == [1, 2, 4, 30]
    save_alone(tmp_path, 5, keep=2)
    assert list(steps(tmp_path)) == [4, 5, 30]
    assert latest(tmp_path) == find(tmp_path) == tmp_path / "step-00000030"
    assert latest(tmp_path / "nowhere") is None
    with pytest.raises(CheckpointError, match=r"step-00000009: is no checkpoint"):
        find(tmp_path / "step-00000009")


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    save_alone(tmp_path, 10)
    with pytest.raises(CheckpointError, match="step-00000010: exists already"):
        save_alone(tmp_path, 10)
    Checkpoint(tmp_path / "step-00000010").verify()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"partition": Partition((9, 14))}, "the partition has 2 ranks; expected 1"),
        ({"shard": tensors(range(9))}, "expected 23 rows"),
        ({"shard": {"momentum": torch.zeros(CLASSES, DIM)}}, "has no centers of"),
        ({"shard": {"centers": torch.zeros(CLASSES, DIM + 1)}}, "has no centers of"),
        ({"label_names": NAMES[1:]}, "label_names has 22 names; expected 23"),
        ({"label_names": [*NAMES[1:], "a\udcff"]}, r"label_names: 'a\\udcff' is no text in UTF-8"),
        ({"label_names": ["a\nb", "\udcff", *NAMES[2:]]}, r"label_names: '\\udcff' is no text"),
        ({"label_names": ["a" * 30_000, *NAMES[1:]]}, "a+ is too long; expected 1024 bytes"),
        ({"backbone": {"a": torch.zeros(1, dtype=torch.complex64)}}, "a tensor is torch.complex64"),
        ({"config": {"a": float("nan")}}, "cannot be written as JSON"),
        ({"config": {"a": object()}}, "cannot be written as JSON"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    given = {"shard": tensors(range(CLASSES)), "backbone": backbone()} | change
    partition = given.pop("partition", Partition((CLASSES,)))
    described = manifest(partition, config=given.pop("config", {}))
    with pytest.raises(InvalidArgumentError, match=words):
        save(tmp_path, Group(), described, **given)
    assert not list(tmp_path.iterdir())


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """Changes the values of the manifest."""

    def apply(path: Path) -> None:
        values = json.loads((path / MANIFEST).read_text())
        del values["digest"]
        change(values)
        (path / MANIFEST).write_bytes(sealed(values))

    return apply


def put(text: bytes) -> Callable[[Path], Any]:
    return lambda path: (path / MANIFEST).write_bytes(text)


def header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """Changes the header of a shard."""

    def apply(path: Path) -> None:
        data = (path / SECOND).read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        values = json.loads(data[8:end])
        change(values)
        text = json.dumps(values).encode()
        (path / SECOND).write_bytes(len(text).to_bytes(8, "little") + text + data[end:])

    return apply


def cut(name: str, size: int) -> Callable[[Path], Any]:
    return lambda path: os.truncate(path / name, size)


def rename(old: str, new: str) -> Callable[[Path], Any]:
    return lambda path: (path / old).rename(path / new)


def of_ranks(*pairs: list[int]) -> Callable[[Path], Any]:
    return edit(lambda m: m.update(classes_of_rank=list(pairs)))


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (lambda p: (p / MANIFEST).unlink(), f"{MANIFEST}: is missing"),
    "shard missing": (lambda p: (p / SECOND).unlink(), f"{SECOND}: is missing; .* of 4 ranks"),
    "backbone missing": (lambda p: (p / "backbone.safetensors").unlink(), "backbone.* is missing"),
    "shard of another world size": (
        rename(SECOND, "shard-00002-of-00003.safetensors"),
        f"{SECOND}: is missing; .* of 4 ranks; shard-00002-of-00003.* is of another world size",
    ),
    "world size": (
        of_ranks([0, 5], [5, 23]),
        "digests: shard-00000-of-00002.safetensors, a file of 2 ranks, has no SHA-256",
    ),
    "manifest of another world size": (
        lambda p: (p / MANIFEST).write_bytes(
            (p.parent / "run/step-00000120" / MANIFEST).read_bytes()
        ),
        "shard-00000-of-00001.* is missing; .* of 1 ranks; shard-00000-of-00004.* another world",
    ),
    "shards exchanged": (
        lambda p: (p / SECOND).write_bytes((p / SECOND.replace("2-of", "3-of")).read_bytes()),
        f"{SECOND}: '[a-z]+' is .* \\[7.*\\]; {MANIFEST} says .* \\[11",
    ),
    "gap": (of_ranks([0, 5], [6, 23]), "rank 1, .* leave a gap; expected .* begin at 5"),
    "overlap": (of_ranks([0, 5], [4, 23]), "rank 1, .* overlap .*; expected .* begin at 5"),
    "backwards": (of_ranks([0, 5], [5, 3]), "rank 1, .* end before they begin"),
    "no class": (of_ranks([0, 0]), "at least one class"),
    "no rank": (of_ranks(), "the classes of 1 to 65536 ranks"),
    "huge range": (of_ranks([0, 10**30]), "rank 0 is 10+; expected a whole number"),
    "range of text": (of_ranks(["0", "5"]), "expected a whole number"),  # type: ignore[list-item]
    "pair of three": (of_ranks([0, 5, 6]), "behind the last"),
    "digest": (
        edit(lambda m: m["digests"].update({SECOND: "0" * 64})),
        f"{SECOND}: has SHA-256 [0-9a-f]+; {MANIFEST} says 0+",
    ),
    "digest missing": (
        edit(lambda m: m["digests"].pop(SECOND)),
        f"digests: {SECOND}, a file of 4 ranks, has",
    ),
    "digest of a path": (
        edit(lambda m: m["digests"].update({"../../etc/passwd": "0" * 64})),
        "'../../etc/passwd' is no file of 4 ranks",
    ),
    "path as network": (edit(lambda m: m.update(network="../x")), "network is '../x'"),
    "step": (edit(lambda m: m.update(step=-1)), "step is -1; expected a whole number"),
    "step of truth": (edit(lambda m: m.update(step=True)), "step is True"),
    "dim": (edit(lambda m: m.update(dim=7)), r"centers has rows of F32 \[6\]; expected \[7\]"),
    "dtype": (
        edit(lambda m: m["shard_tensors"]["centers"].update(dtype="F64")),
        r"'centers' is F32 .*; manifest.json says F64",
    ),
    "unknown dtype": (
        edit(lambda m: m["shard_tensors"]["centers"].update(dtype="F7")),
        "centers: dtype is 'F7'; expected F64, F32",
    ),
    "row": (
        edit(lambda m: m["shard_tensors"]["momentum"].update(row=[3])),
        r"'momentum' is F32 \[\d+, 6\]; manifest.json says F32 \[\d+, 3\]",
    ),
    "tensor missing": (
        edit(lambda m: m["shard_tensors"].update(more={"dtype": "F32", "row": [6]})),
        "'more' is not there; manifest.json says F32",
    ),
    "tensor too many": (
        edit(lambda m: m["shard_tensors"].pop("momentum")),
        "'momentum' is .*; manifest.json says that there is none",
    ),
    "preprocessing": (
        edit(lambda m: m["preprocessing"].update(color="blue")),
        "preprocessing: color is 'blue'",
    ),
    "field missing": (edit(lambda m: m.pop("network")), "the field network is missing"),
    "field unknown": (edit(lambda m: m.update(exec="x")), "unknown field 'exec'"),
    "version": (edit(lambda m: m.update(version=1)), "version is 1; this pyedge reads 2"),
    "no digest": (put(b'{"format": "pyedge-checkpoint", "version": 2}'), "digest says None"),
    "another format": (put(b'{"format": "x"}'), "is no manifest"),
    "no object": (put(b"[1]"), "is no manifest"),
    "no JSON": (put(b"{"), f"{MANIFEST}: not JSON"),
    "no UTF-8": (put(b'{"\xff": 1}'), "not JSON in UTF-8"),
    "key twice": (put(b'{"step": 1, "step": 2}'), "the key 'step' is there twice"),
    "NaN": (put(b'{"step": NaN}'), "NaN is no number"),
    "infinite": (put(b'{"step": 1e999}'), "1e999 is no number"),
    "many digits": (put(b'{"step": ' + b"9" * 5000 + b"}"), "not JSON"),
    "half a surrogate": (put(b'{"a": "\\ud800"}'), "not JSON in UTF-8: .*surrogates"),
    "nested": (put(b'{"a": ' * 70 + b"1" + b"}" * 70), "nested more than 64 levels deep"),
    "nested deeply": (put(b"[" * 200_000), "nested too deeply"),
    "large": (put(b" " * (17 << 20)), "is too large: [0-9]+ bytes of JSON; expected at most"),
    "cut off": (cut(SECOND, 700), f"{SECOND}: has 700 bytes; its header describes"),
    "cut in the header": (cut(SECOND, 100), f"{SECOND}: is cut off: 100 bytes"),
    "cut in the length": (cut(SECOND, 4), f"{SECOND}: is cut off: 4 bytes"),
    "empty": (cut(SECOND, 0), f"{SECOND}: is cut off: 0 bytes"),
    "longer": (
        lambda p: (p / SECOND).write_bytes((p / SECOND).read_bytes() + b"\0"),
        f"{SECOND}: has [0-9]+ bytes; its header describes",
    ),
    "huge header": (
        lambda p: (p / SECOND).write_bytes(b"\xff" * 8 + b"{}"),
        f"{SECOND}: is cut off: 10 bytes, which do not hold a header of 18446744073709551615",
    ),
    "large header": (
        lambda p: (p / SECOND).write_bytes((32 << 20).to_bytes(8, "little") + bytes(32 << 20)),
        f"{SECOND}: has a header of 33554432 bytes; expected at most",
    ),
    "header is a list": (header(lambda h: h.clear()), f"{SECOND}: has .* bytes; its header"),
    "overlapping tensors": (
        header(lambda h: h["momentum"].update(data_offsets=h["centers"]["data_offsets"])),
        "the bytes of 'momentum' begin at .*; expected",
    ),
    "huge shape": (
        header(lambda h: h["momentum"].update(shape=[2**40, 2**40])),
        r"'momentum' has data_offsets .*; F32 \[1099511627776, 1099511627776\] takes",
    ),
    "shape that wraps around": (
        header(lambda h: h["momentum"].update(shape=[2**62, 4, 11, 6])),
        "'momentum' has shape",
    ),
    "negative offset": (
        header(lambda h: h["momentum"].update(data_offsets=[-8, 256])),
        "'momentum' has data_offsets .*expected sizes",
    ),
    "offsets of truth": (
        header(lambda h: h["momentum"].update(data_offsets=[False, 264])),
        "'momentum' has data_offsets",
    ),
    "offsets missing": (
        header(lambda h: h["momentum"].update(data_offsets=[])),
        "'momentum' has data_offsets",
    ),
    "dtype in the header": (header(lambda h: h["momentum"].update(dtype=["F32"])), "has dtype"),
    "field in the header": (header(lambda h: h["momentum"].update(file="/etc")), "is not dtype"),
    "metadata": (header(lambda h: h.update(__metadata__=3)), "__metadata__ is not texts"),
    "names": (lambda p: (p / "names.json").write_text("[]"), "names.json: has SHA-256"),
    "names are a folder": (
        lambda p: (p / "names.json").rename(p / "x") and (p / "names.json").mkdir(),
        "names.json: is missing",
    ),
}


def read_whole(path: Path, verify: bool = True) -> None:
    checkpoint = Checkpoint(path, verify)
    checkpoint.verify()
    checkpoint.rows(range(checkpoint.manifest.classes))
    checkpoint.backbone()
    checkpoint.label_names()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_named(tmp_path: Path, mistake: str) -> None:
    path = checkpoint_of(tmp_path, SIZES)
    damage, words = MISTAKES[mistake]
    damage(path)
    with pytest.raises(CheckpointError, match=words) as error:
        read_whole(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (b"{}", "is no array of names"),
        (b"[1]", "is no array of names"),
        (b'["a"]', "has 1 names; expected 23"),
        (b" " * 30_000, "is too large"),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, names: bytes, words: str) -> None:
    path = checkpoint_of(tmp_path, SIZES)
    (path / "names.json").write_bytes(names)
    edit(lambda m: m["digests"].update({"names.json": hashlib.sha256(names).hexdigest()}))(path)
    with pytest.raises(CheckpointError, match=words):
        read_whole(path)


def sealed_again(manifest: bytes) -> bytes:
    """With a right digest, if it is still JSON: what a file says on purpose is to be read."""
    try:
        values = json.loads(manifest)
        values.pop("digest", None)
        return sealed(values)
    except (ValueError, AttributeError):
        return manifest


def test_every_changed_bit_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    path = save_alone(tmp_path)
    data = (path / MANIFEST).read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 7
        (path / MANIFEST).write_bytes(changed)
        try:
            same = json.loads(changed) == json.loads(data)
        except ValueError:
            same = False
        if not same:  # white space has no meaning
            with pytest.raises(CheckpointError, match=MANIFEST):
                Checkpoint(path)


@pytest.mark.parametrize("name", [MANIFEST, SECOND, "backbone.safetensors", "names.json"])
def test_no_damage_is_more_than_an_error(tmp_path: Path, name: str) -> None:
    """Bytes changed, cut, repeated: a CheckpointError or a checkpoint, and nothing else."""
    path = checkpoint_of(tmp_path, SIZES)
    data = (path / name).read_bytes()
    generator = random.Random(name)
    pieces = [
        b'"',
        b"[",
        b"]",
        b"}",
        b"-1",
        b"1e9",
        b"9" * 25,
        b"\xff",
        b"null",
        b":",
        b",",
        b"\\u",
    ]
    errors = []
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(generator.choice([1, 1, 2, 5])):
            place = generator.randrange(min(len(changed), 700))
            kind = generator.randrange(4)
            if kind == 0:
                changed[place] = generator.randrange(256)
            elif kind == 1:
                changed[place : place + generator.randrange(1, 9)] = generator.choice(pieces)
            elif kind == 2:
                del changed[place : place + generator.randrange(1, 40)]
            else:
                changed[place:place] = changed[place : place + generator.randrange(1, 40)]
        (path / name).write_bytes(sealed_again(changed) if name == MANIFEST else changed)
        try:
            read_whole(path, verify=False)
        except CheckpointError as error:
            errors.append(str(error))
    assert len(errors) > 100
    assert all(str(path) in error for error in errors)


def test_manifest_reads_what_it_writes(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path, SIZES) / MANIFEST
    assert Manifest.read(path).to_bytes() == path.read_bytes()
