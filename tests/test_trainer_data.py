"""Training data: who is in it, which batches a step has, and what happens to damaged files."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyedge.errors import InvalidArgumentError, InvalidImageError, TrainingError
from pyedge.trainer.data import (
    NO_AUGMENTATION,
    Augmentation,
    Batches,
    BatchSampler,
    FaceFolder,
    FolderBatches,
    LaneSampler,
    Pixels,
    Position,
    Shards,
    StreamBatches,
    augment,
    held_out,
    index_shards,
    trained_metadata,
    write_shards,
)
from pyedge.trainer.data.sampler import Purpose, generator

SIDE = 16  # of the network's input
SMALL = trained_metadata(SIDE)
PIXELS = Pixels(Augmentation(shift=0.2, zoom=0.2, mask=0.5, contrast=0.3, cutout=0.5), SMALL, 5)
PLAIN = Pixels(NO_AUGMENTATION, SMALL)


def picture(number: int) -> np.ndarray:
    """Tells its number: in the red of all its pixels, and the hundreds in the green."""
    image = np.zeros((112, 112, 3), np.uint8)
    image[..., 0], image[..., 1] = number % 100, number // 100
    return image


def number_of(images: torch.Tensor) -> list[int]:
    pixels = (images[:, :2, 8, 8] * 127.5 + 127.5).round().int()
    return [int(red + 100 * green) for red, green in pixels]


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceFolder:
    """101 images of 7 people; image i, in the folder's order, tells i."""
    folder = tmp_path_factory.mktemp("faces")
    people = sorted((i * i % 7, i) for i in range(101))
    for number, (person, i) in enumerate(people):
        save(folder / f"person {person}" / f"{i:03d}.png", picture(number))
    return FaceFolder.scan(folder)


@pytest.fixture(scope="module")
def shards(faces: FaceFolder, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return write_shards(faces, tmp_path_factory.mktemp("shards") / "new", 30).shards


# Folders


def test_both_forms_of_folders_are_one(tmp_path: Path) -> None:
    for name in ("Zoe_0001.png", "Ann_Lee_0002.png", "Ann_Lee_0001.png"):
        save(tmp_path / "flat" / name, picture(0))
    for name in ("Bob/b.png", "Bob/a.png", "Ann_Lee/x.png"):
        save(tmp_path / "people" / name, picture(0))
    (tmp_path / "people" / "notes").mkdir()
    (tmp_path / "people" / "readme.txt").write_text("no image")
    faces = FaceFolder.scan([tmp_path / "people", tmp_path / "flat"])
    assert faces.names == ("Ann_Lee", "Bob", "Zoe")
    assert [path.name for path in faces.paths] == [
        *("Ann_Lee_0001.png", "Ann_Lee_0002.png", "x.png"),
        *("a.png", "b.png"),
        "Zoe_0001.png",
    ]
    assert faces.labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert faces.labels.dtype == np.int64
    enough = faces.at_least(2).without({"Bob"})
    assert enough.names == ("Ann_Lee",)
    assert enough.paths == faces.paths[:3]
    with pytest.raises(
        InvalidArgumentError, match="none of 3 identities has 4 images; the most is"
    ):
        faces.at_least(4)
    with pytest.raises(InvalidArgumentError, match="all of 3 identities are excluded"):
        faces.without(faces.names)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="not a folder"):
        FaceFolder.scan(tmp_path / "nowhere")
    with pytest.raises(InvalidArgumentError, match="no images in this folder or its subfolders"):
        FaceFolder.scan(tmp_path)
    save(tmp_path / "a.png", picture(0))
    save(tmp_path / "b" / "c.png", picture(0))
    with pytest.raises(
        InvalidArgumentError, match=r"has images itself \(a.png\) and in subfolders"
    ):
        FaceFolder.scan(tmp_path)
    with pytest.raises(InvalidArgumentError, match="no folder was given"):
        FaceFolder.scan([])


def test_hold_out_looks_at_names_alone(faces: FaceFolder) -> None:
    names = [f"person {i}" for i in range(2000)]
    share = sum(held_out(name, 0.2) for name in names) / len(names)
    assert share == pytest.approx(0.2, abs=0.03)
    assert [n for n in names if held_out(n, 0.1)] == [
        n for n in names if int(hashlib.sha256(n.encode()).hexdigest(), 16) < 0.1 * 2**256
    ]
    train, out = faces.hold_out(0.5)
    assert out.names == tuple(name for name in faces.names if held_out(name, 0.5))
    assert sorted(train.names + out.names) == list(faces.names)
    assert sorted(train.paths + out.paths) == sorted(faces.paths)
    assert train.labels.max() == len(train.names) - 1
    assert faces.hold_out(0.0)[0].paths == faces.paths
    with pytest.raises(InvalidArgumentError, match="expected in"):
        faces.hold_out(1.0)


def test_bad_images_are_named(tmp_path: Path) -> None:
    save(tmp_path / "Ann_1.png", picture(0))
    save(tmp_path / "Bob_1.png", np.zeros((8, 9, 3), np.uint8))
    faces = FaceFolder.scan(tmp_path)
    with pytest.raises(InvalidImageError, match=r"Bob_1.png: 9x8 pixels; expected .* 112x112"):
        FolderBatches(faces, BatchSampler(2, 2), PLAIN)
    whole = (tmp_path / "Ann_1.png").read_bytes()
    (tmp_path / "Bob_1.png").write_bytes(whole[:-9])
    for workers in (0, 1):
        batches = FolderBatches(faces, BatchSampler(2, 2), PLAIN, workers=workers, cache_bytes=0)
        with pytest.raises(InvalidImageError, match=r"Bob_1.png: truncated PNG"):
            list(batches.epoch(Position()))


# The global batch


def test_sampler_deals_each_sample_once() -> None:
    sampler = BatchSampler(103, 12, seed=3)
    assert sampler.steps_per_epoch == 8
    for world_size in (1, 2, 3, 4, 6, 12):
        for step in (0, 7):
            whole = sampler.indices(Position(4, step))
            ranks = [sampler.indices(Position(4, step), r, world_size) for r in range(world_size)]
            assert np.array_equal(np.concatenate(ranks), whole)
    epochs = [
        np.concatenate([sampler.indices(Position(epoch, step)) for step in range(8)])
        for epoch in (0, 1)
    ]
    for indices in epochs:
        assert len(set(indices.tolist())) == 96
        assert 0 <= indices.min() <= indices.max() < 103
    assert not np.array_equal(*epochs)
    other = BatchSampler(103, 12, seed=4)
    assert not np.array_equal(other.indices(Position()), sampler.indices(Position()))


def test_order_stays_from_release_to_release() -> None:
    assert BatchSampler(1000, 4, seed=1).indices(Position(2, 3)).tolist() == [580, 508, 13, 142]


def test_sampler_refuses() -> None:
    sampler = BatchSampler(103, 12)
    with pytest.raises(InvalidArgumentError, match="12 cannot be shared evenly by 5 ranks"):
        sampler.indices(Position(), 0, 5)
    with pytest.raises(InvalidArgumentError, match="step 8 of an epoch of 8 steps"):
        sampler.indices(Position(0, 8))
    with pytest.raises(InvalidArgumentError, match="a batch of 12 from 11 samples"):
        BatchSampler(11, 12)
    with pytest.raises(InvalidArgumentError, match="seed is -1"):
        BatchSampler(103, 12, -1)


def test_position_goes_on() -> None:
    assert Position(0, 6).advance(8) == Position(0, 7)
    assert Position(0, 7).advance(8) == Position(1, 0)


# Batches of a rank


Maker = Callable[[int, int, int], Batches]


@pytest.fixture(params=["folder", "stream"])
def make(request: pytest.FixtureRequest, faces: FaceFolder, shards: Shards) -> Maker:
    """Batches of 24 for a rank, a world size and a number of workers."""

    def folder(rank: int, world_size: int, workers: int) -> Batches:
        cache = 0 if workers else 1 << 20
        sampler = BatchSampler(len(faces.paths), 24, seed=2)
        return FolderBatches(faces, sampler, PIXELS, rank, world_size, workers, cache)

    def stream(rank: int, world_size: int, workers: int) -> Batches:
        sampler = LaneSampler(shards, 24, lanes=4, buffer=7, seed=2)
        return StreamBatches(sampler, PIXELS, rank, world_size, workers)

    return {"folder": folder, "stream": stream}[request.param]


def test_batches_do_not_depend_on_ranks_or_workers(make: Maker) -> None:
    position = Position(3, 1)
    alone = list(make(0, 1, 0).epoch(position))
    assert len(alone) == make(0, 1, 0).steps_per_epoch - 1 == 3
    for images, labels in alone:
        assert (images.shape, images.dtype) == ((24, 3, SIDE, SIDE), torch.float32)
        assert (labels.shape, labels.dtype) == ((24,), torch.int64)
    for world_size, workers in ((1, 2), (2, 0), (2, 2), (4, 1)):
        ranks = [make(rank, world_size, workers).epoch(position) for rank in range(world_size)]
        for (images, labels), *parts in zip(alone, *ranks, strict=True):
            assert torch.equal(torch.cat([part[0] for part in parts]), images)
            assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def test_going_on_within_an_epoch(make: Maker) -> None:
    whole = list(make(0, 2, 0).epoch(Position(1)))
    for start in range(len(whole) + 1):
        rest = list(make(0, 2, 0).epoch(Position(1, start)))
        assert len(rest) == len(whole) - start
        for (a, a_labels), (b, b_labels) in zip(rest, whole[start:], strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a_labels, b_labels)


def test_going_on_reads_what_is_left(faces: FaceFolder, tmp_path: Path) -> None:
    """The shards that hold nothing of the steps to come need not even be there."""
    shards = write_shards(faces, tmp_path / "set", images_per_shard=4).shards
    sampler = LaneSampler(shards, 4, lanes=1, buffer=6, seed=2)
    whole = list(sampler.batches(0, epoch=1))
    assert len(whole) == sampler.steps_per_epoch == 25
    order = generator(Purpose.SHARDS, 2, 1).permutation(len(shards.files))
    for start in range(26):
        assert list(sampler.batches(0, 1, start)) == whole[start:]
        if start >= 15:  # 60 samples are taken: none of the first 20 is in the buffer by now
            (shards.folder / shards.files[order[start - 15]]).unlink(missing_ok=True)


def test_lanes_stay_from_release_to_release(shards: Shards) -> None:
    batch = next(LaneSampler(shards, 8, lanes=2, buffer=20, seed=1).batches(1, epoch=2))
    assert [sample.index for sample in batch] == [72, 85, 80, 86]


def test_epochs_differ(make: Maker) -> None:
    first, second = (next(make(0, 1, 0).epoch(Position(epoch)))[0] for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_batches_leave_torch_alone(make: Maker) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(make(0, 1, 0).epoch(Position()))
    list(make(0, 1, 1).epoch(Position()))
    assert torch.equal(torch.get_rng_state(), before)


def children() -> set[int]:
    """Processes of this one; other tests may have left theirs for later."""
    return {process.pid for process in multiprocessing.active_children()}


def test_stopping_within_an_epoch_ends_the_workers(make: Maker) -> None:
    before = children()
    batches = make(0, 1, 2).epoch(Position())
    next(batches)
    assert len(children() - before) == 2
    batches.close()
    assert children() == before


def test_a_dead_worker_is_an_error(make: Maker) -> None:
    before = children()
    batches = make(0, 1, 1).epoch(Position())
    next(batches)
    (worker,) = children() - before
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.2)  # told where batches are asked for, not in the middle of a step
    with pytest.raises(TrainingError, match="a worker that loads data ended"):
        list(batches)


@pytest.mark.parametrize("form", ["folder", "stream"])
def test_an_epoch_has_each_image_with_its_label(
    form: str, faces: FaceFolder, shards: Shards
) -> None:
    batches: Batches
    if form == "folder":
        batches = FolderBatches(faces, BatchSampler(101, 10), PLAIN)
    else:
        batches = StreamBatches(LaneSampler(shards, 10, lanes=5, buffer=9), PLAIN)
    assert batches.steps_per_epoch == 10
    seen = []
    for images, labels in batches.epoch(Position()):
        numbers = number_of(images)
        assert labels.tolist() == faces.labels[numbers].tolist()
        seen += numbers
    assert len(set(seen)) == 100
    assert seen != sorted(seen)


def test_loaders_refuse(faces: FaceFolder, shards: Shards) -> None:
    with pytest.raises(InvalidArgumentError, match="for 7 samples; the folder has 101"):
        FolderBatches(faces, BatchSampler(7, 2), PLAIN)
    with pytest.raises(InvalidArgumentError, match="shared evenly by 3 ranks"):
        FolderBatches(faces, BatchSampler(101, 4), PLAIN, 0, 3)
    with pytest.raises(InvalidArgumentError, match="rank 2 of 2"):
        FolderBatches(faces, BatchSampler(101, 4), PLAIN, 2, 2)
    with pytest.raises(InvalidArgumentError, match="4 lanes cannot be shared evenly by 3 ranks"):
        StreamBatches(LaneSampler(shards, 12, lanes=4), PLAIN, 0, 3)
    with pytest.raises(InvalidArgumentError, match="batch of 10 from 4 lanes"):
        LaneSampler(shards, 10, lanes=4)
    with pytest.raises(InvalidArgumentError, match="not enough for one step"):
        LaneSampler(shards, 104, lanes=4)
    with pytest.raises(InvalidArgumentError, match="buffer is 0"):
        LaneSampler(shards, 8, buffer=0)


def test_normalization() -> None:
    image = np.zeros((112, 112, 3), np.uint8)
    image[..., 0], image[..., 2] = 255, 127
    tensor = Pixels(NO_AUGMENTATION)([image], [0], 0)
    assert tensor.shape == (1, 3, 112, 112)
    assert tensor[0, :, 5, 5].tolist() == pytest.approx([1, -1, -0.5 / 127.5], abs=1e-6)


# Shards


def test_shards_are_what_they_say(faces: FaceFolder, shards: Shards, tmp_path: Path) -> None:
    assert shards.samples == (30, 30, 30, 11)
    assert shards.names() == faces.names
    assert Shards.open(shards.folder) == shards
    samples = [sample for shard in range(4) for sample in shards.read(shard)]
    assert [sample.index for sample in samples] == list(range(101))
    kept = {path.read_bytes(): label for path, label in zip(faces.paths, faces.labels, strict=True)}
    assert {sample.data: sample.label for sample in samples} == kept, "files go in as they are"
    again = write_shards(faces, tmp_path / "again", 30, workers=2).shards
    for name in (*again.files, "shards.json", "names.json"):
        assert (again.folder / name).read_bytes() == (shards.folder / name).read_bytes()
    with pytest.raises(InvalidArgumentError, match="not empty"):
        write_shards(faces, tmp_path / "again")


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


def png(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number)).save(buffer, "PNG")
    return buffer.getvalue()


def test_shards_of_another_origin(tmp_path: Path) -> None:
    tar(tmp_path / "b.tar", {"x/7.png": png(3), "x/7.json": b'{"label": 4, "name": "Ann"}'})
    tar(
        tmp_path / "a.tar",
        {
            **{"0.cls": b"1\n", "0.jpg": png(1), "0.pkl": b"cos\nsystem\n(S'exit 1'\ntR."},
            **{"1.json": b'{"label": 2}', "1.PNG": png(2), "1.landmarks.pyd": b""},
        },
    )
    shards = index_shards(tmp_path)
    assert shards.files == ("a.tar", "b.tar")
    assert (shards.samples, shards.classes) == ((2, 1), 5)
    assert shards.names() == ("0", "1", "2", "3", "4")
    samples = [*shards.read(0), *shards.read(1)]
    assert [sample.label for sample in samples] == [1, 2, 4]
    assert [int(sample.image()[0, 0, 0]) for sample in samples] == [1, 2, 3]
    assert list(shards.read(0, 1)) == samples[1:2]
    with pytest.raises(TrainingError, match=r"b\.tar: x/7\.json: label 4; expected 0 to 3"):
        index_shards(tmp_path, classes=4)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.cls": b"1"}, r"a\.tar: 0: has cls; expected one image and cls or json"),
        ({"0.png": png()}, r"a\.tar: 0: has png; expected one image"),
        ({"0.png": png(), "0.jpg": png(), "0.cls": b"0"}, "has cls, jpg, png; expected one image"),
        ({"0.png": png(), "0.cls": b"one"}, r"0\.cls: b'one'; expected a whole number"),
        ({"0.png": png(), "0.cls": b"-1"}, r"0\.cls: label -1; expected 0 to 2147483647"),
        ({"0.png": png(), "0.cls": b"%d" % 2**31}, r"0\.cls: label 2147483648; expected 0 to"),
        ({"Al.B.png": png(), "Al.B.cls": b"0"}, r"a\.tar: Al: has b\.cls, b\.png; expected one"),
        ({"0.png": png(), "0.cls": b"9" * 5000}, r"0\.cls: .*expected a whole number"),
        ({"0.png": png(), "0.json": b"{"}, r'0\.json: .*expected \{"label": NUMBER\}'),
        ({"0.png": png(), "0.json": b"[" * 99999}, r"0\.json: "),
        ({"0.png": png(), "0.json": b'{"label": true}'}, r"0\.json: "),
        ({}, r"a\.tar: no samples"),
    ],
)
def test_bad_samples_are_named(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", members)
    with pytest.raises(TrainingError, match=message):
        index_shards(tmp_path)


def test_bad_tar_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    tar(path, {"0.png": png(), "0.cls": b"0", "1.png": png(), "1.cls": b"0"})
    whole = path.read_bytes()
    shards = index_shards(tmp_path)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        list(shards.read(0))

    with pytest.raises(TrainingError, match=r"a\.tar: .* bytes; the index says"):
        read(whole[:1000])
    with pytest.raises(TrainingError, match=r"a\.tar: ends after 1 samples; the index says 2"):
        read(whole[:2048] + bytes(len(whole) - 2048))
    with pytest.raises(TrainingError, match=r"a\.tar: not a whole tar file"):
        read(b"\xff" * len(whole))
    huge = tarfile.TarInfo("0.png")
    huge.size = 1 << 60
    with pytest.raises(TrainingError, match=r"a\.tar: .*0\.png"):
        read(huge.tobuf(tarfile.GNU_FORMAT) + whole[512:])
    with pytest.raises(TrainingError, match=r"a\.tar: .*duplicate file name"):
        read(whole[:1024] * 2 + whole[2048:])
    backwards = tarfile.TarInfo("notes.txt")
    backwards.size = -1024
    with pytest.raises(TrainingError, match=r"a\.tar: .*notes\.txt has a size of -1024"):
        read(whole[:2048] + backwards.tobuf(tarfile.GNU_FORMAT) + whole[2560:])
    path.unlink()
    with pytest.raises(TrainingError, match=r"a\.tar: no such file"):
        list(shards.read(0))


def test_an_end_that_is_none(tmp_path: Path) -> None:
    """A tar file ends with zeros; a damaged header, or no more bytes, is no end."""
    path = tmp_path / "a.tar"
    tar(path, {"0.png": png(), "0.cls": b"0", "1.png": png(), "1.cls": b"0"})
    whole = path.read_bytes()
    last = whole.rindex(b"1.png")
    for data in (whole[:last], whole[:last] + b"\xff" + whole[last + 1 :]):
        path.write_bytes(data)
        with pytest.raises(TrainingError, match=rf"a\.tar: .*no header and no end at byte {last}"):
            index_shards(tmp_path)
    path.write_bytes(whole[: last + 100])
    with pytest.raises(TrainingError, match=r"a\.tar: not a whole tar file"):
        index_shards(tmp_path)


def test_what_may_be_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyedge.trainer.data.shards._MOST_BYTES", len(png()))
    large = bytes(len(png()) + 1)
    tar(tmp_path / "a.tar", {"0.png": png(), "0.mask.png": large, "0.cls": b"0", "0.npy": large})
    assert index_shards(tmp_path).samples == (1,)
    tar(tmp_path / "a.tar", {"0.png": large, "0.cls": b"0"})
    with pytest.raises(TrainingError, match=r"0\.png: not a plain, whole member of at most"):
        index_shards(tmp_path)


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("0.png")
    member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}
    member.size = 1
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(TrainingError, match=r"0\.png: not a plain, whole member"):
        index_shards(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_in_a_stream_is_named(workers: int, tmp_path: Path) -> None:
    for shard in range(2):
        tar(tmp_path / f"{shard}.tar", {f"k{shard}.cls": b"0", f"k{shard}.png": png()[:60]})
    batches = StreamBatches(LaneSampler(index_shards(tmp_path), 2, lanes=2), PLAIN, workers=workers)
    with pytest.raises(InvalidImageError, match=r"[01]\.tar: k[01]\.png: truncated PNG"):
        list(batches.epoch(Position()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "zip"}, "format 'zip'"),
        ({"classes": -1}, "-1 is no count"),
        ({"classes": None}, "None is no count"),
        ({"classes": 0}, "0 classes; expected 1 to"),
        ({"shards": []}, "no shards"),
        ({"shards": [{"file": "a.tar"}]}, "no field 'samples'"),
        ({"shards": [{"file": "../a.tar", "samples": 1, "bytes": 1}]}, "is no file name"),
        ({"shards": [{"file": "a.tar", "samples": 1, "bytes": 1}] * 2}, "one of them twice"),
        ({"shards": 3}, "not an index"),
    ],
)
def test_bad_indexes(change: dict[str, object], message: str, tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"0.png": png(), "0.cls": b"0"})
    index_shards(tmp_path)
    path = tmp_path / "shards.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InvalidArgumentError, match=rf"shards\.json: .*{message}"):
        Shards.open(tmp_path)
    path.write_text("{")
    with pytest.raises(InvalidArgumentError, match=r"shards\.json: not JSON"):
        Shards.open(tmp_path)


def test_bad_names(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"0.png": png(), "0.cls": b"0"})
    shards = index_shards(tmp_path)
    (tmp_path / "names.json").write_text('["Ann", "Bob"]')
    with pytest.raises(InvalidArgumentError, match=r"names\.json: 2 names; expected 1"):
        shards.names()
    (tmp_path / "names.json").write_text("[1]")
    with pytest.raises(InvalidArgumentError, match=r"names\.json: expected a list of names"):
        shards.names()


# Augmentation


@pytest.fixture
def face() -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    image.flags.writeable = False
    return image


def test_augmentation_follows_from_seed_epoch_and_index(face: np.ndarray) -> None:
    everything = Augmentation(0.5, 0.1, 0.1, 0.5, 0.2, 0.2, 0.3, 0.5)
    results = {
        numbers: everything(face, *numbers)
        for numbers in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    }
    for numbers, image in results.items():
        assert (image.shape, image.dtype) == ((112, 112, 3), np.uint8)
        assert np.array_equal(everything(face, *numbers), image)
    assert len({image.tobytes() for image in results.values()}) == 4
    assert np.array_equal(NO_AUGMENTATION(face, 0, 0, 0), face)


def test_probabilities(face: np.ndarray) -> None:
    flipped = sum(
        np.array_equal(Augmentation(flip=0.3)(face, 0, 0, i), face[:, ::-1]) for i in range(500)
    )
    assert 110 <= flipped <= 190
    assert np.array_equal(Augmentation(flip=1)(face, 0, 0, 0), face[:, ::-1])


def test_crop(face: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(augment.crop(face, rng, 0.0, 0.0), face)

    class Fixed(np.random.Generator):
        """A scale of 1, and 14 pixels right and 28 up."""

        def uniform(self, low: float, high: float, size: int | None = None) -> object:
            return 0.0 if size is None else np.array([0.125, -0.25])

    moved = augment.crop(face, Fixed(np.random.PCG64(0)), 0.3, 0.0)
    assert np.array_equal(moved[28:, :98], face[:84, 14:])
    assert not moved[:28].any()
    assert not moved[:, 98:].any()


def test_jitter_and_grayscale(face: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    assert np.array_equal(augment.jitter(face, rng, 0.0, 0.0), face)
    means = [augment.jitter(face, rng, 0.2, 0.0).mean() for _ in range(50)]
    assert min(means) < face.mean() - 15
    assert max(means) > face.mean() + 15
    spreads = [augment.jitter(face, rng, 0.0, 0.5).std() for _ in range(50)]
    assert min(spreads) < 0.8 * face.std()
    gray = augment.grayscale(face)
    assert np.array_equal(gray[..., 0], gray[..., 2])
    luma = 0.299 * face[..., 0] + 0.587 * face[..., 1] + 0.114 * face[..., 2]
    assert np.abs(gray[..., 1] - luma).max() <= 0.5 + 1e-4


def test_cutout_erases_a_rectangle_of_its_share(face: np.ndarray) -> None:
    for seed in range(30):
        changed = (augment.cutout(face, np.random.default_rng(seed), (0.1, 0.2)) != face).any(2)
        rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / changed.size
        assert 0.09 <= area <= 0.21
        assert changed.sum() >= 0.95 * area * changed.size, "one rectangle"
    tiny = np.zeros((1, 1, 3), np.uint8)
    assert augment.cutout(tiny, np.random.default_rng(0), (0.02, 0.2)).shape == (1, 1, 3)


@pytest.mark.parametrize("side", [112, 224])
def test_mask_covers_mouth_and_nose_and_leaves_the_eyes(side: int) -> None:
    eyes, nose = [(38.3, 51.7), (73.5, 51.5)], (56.0, 71.7)
    mouth = [(41.5, 92.4), (70.7, 92.2), (56.0, 92.3)]
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    hidden_noses = 0
    for seed in range(40):
        masked = augment.face_mask(image, np.random.default_rng(seed))

        def hidden(point: tuple[float, float], masked: np.ndarray = masked) -> bool:
            x, y = (round(c * side / 112) for c in point)
            part = masked[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3)
            return bool((part == part[0]).all())

        assert all(map(hidden, mouth))
        assert not any(map(hidden, eyes))
        hidden_noses += hidden(nose)
    assert hidden_noses >= 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "flip is 1.5; expected 0 to 1"),
        ({"mask": -0.1}, "mask is -0.1"),
        ({"shift": float("nan")}, "shift is nan"),
        ({"zoom": 1.0}, "zoom is 1; expected below 1"),
        ({"cutout_area": (0.5, 0.1)}, "two rising shares"),
    ],
)
def test_augmentation_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Augmentation(**options)
