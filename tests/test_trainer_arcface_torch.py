"""Checkpoints of arcface_torch are taken over, and nothing in their pickles is run."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import random
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from arcface_networks import FEATURES, THEIRS
from models import randomize
from torch import nn
from typer.testing import CliRunner, Result

from pyedge import Session
from pyedge.cli.app import app
from pyedge.errors import CheckpointError, UnsupportedError
from pyedge.trainer import arcface_torch
from pyedge.trainer.arcface_torch import import_checkpoint
from pyedge.trainer.backbones import NAMES, backbone
from pyedge.trainer.checkpoint import Checkpoint
from pyedge.trainer.export import load_backbone, metadata
from pyedge.trainer.partition import Partition
from pyedge.trainer.torch_file import TorchFile

CLASSES = 7


class Scheduler:
    """What a schedule's state may hold: an object of a class of the training program."""

    def __init__(self) -> None:
        self.milestones = {3: 1}
        self.names = frozenset({"a"})


class Evil:
    """Runs a command where it is unpickled as pickle does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def their_files(
    folder: Path, model: nn.Module, centers: list[torch.Tensor], **more: Any
) -> list[Path]:
    """The files that a training of one rank for each of `centers` leaves."""
    head = nn.Module()
    parameters = [*model.parameters(), nn.Parameter(centers[0])]
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9)
    optimizer.state[parameters[-1]]["momentum_buffer"] = torch.ones(3)
    paths = []
    for rank, weight in enumerate(centers):
        head.weight = nn.Parameter(weight)
        paths.append(folder / f"checkpoint_gpu_{rank}.pt")
        values = {
            "epoch": 2,
            "global_step": 250,
            "state_dict_backbone": model.state_dict(),
            "state_dict_softmax_fc": head.state_dict(),
            "state_optimizer": optimizer.state_dict(),
            "state_lr_scheduler": {"last_lr": [0.1], "self": Scheduler()},
        }
        torch.save(values | more, paths[-1])
    return paths


def their_centers(sizes: tuple[int, ...] = (4, 3)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, FEATURES, generator=generator) for size in sizes]


def cli(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest error of a feature, as a share of its length."""
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


@pytest.mark.parametrize("name", ["iresnet18", "mbf", "mbf_large"])
def test_features_and_centres_are_theirs(tmp_path: Path, name: str) -> None:
    model, centers = randomize(THEIRS[name](), 1), their_centers()
    mark = tmp_path / "evil"
    their_files(tmp_path, model, centers, state_lr_scheduler=Evil(mark))
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "checkpoint_gpu_0.pt", weights_only=True)
    out, native = tmp_path / "out", tmp_path / "network.pye"
    result = cli("shards", "import", tmp_path, "-o", out, "--json")
    assert not mark.exists(), "the file's code was run"
    found = json.loads(result.stdout)
    assert (found["step"], found["world_size"], found["classes"]) == (250, 2, CLASSES)
    checkpoint = Checkpoint(out)
    assert checkpoint.manifest.partition == Partition((4, 3))
    assert checkpoint.manifest.training == {"epoch": 2}
    assert torch.equal(checkpoint.rows(range(CLASSES))["centers"], torch.cat(centers))
    cli("convert", out, "-o", native)
    x = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs, ours = model(x), load_backbone(checkpoint)(x)
    assert relative(ours, theirs) <= 1e-5
    assert relative(torch.from_numpy(Session(native).run(x.numpy())[0]), theirs) <= 1e-4
    about = metadata(checkpoint)
    assert (about.color, about.mean, about.model_name) == ("rgb", (127.5,) * 3, name)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_theirs_has_a_name_here(name: str) -> None:
    with torch.device("meta"):
        theirs = THEIRS[name]().state_dict()
        ours = backbone(name, FEATURES).state_dict()
    stem = theirs.get("layers.0.layers.0.weight")
    found = arcface_torch._recognise(Path(), theirs, () if stem is None else tuple(stem.shape))
    assert found.name == name
    names = found.names(ours)
    assert names.keys() == theirs.keys()
    assert sorted(names.values()) == sorted(ours)
    for key, tensor in theirs.items():
        assert (key == found.last) or tensor.shape == ours[names[key]].shape
    assert theirs[found.last].shape == ours[names[found.last]].shape[:2]


def save_small(path: Path, protocol: int = 2, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "epoch": 1,
        "global_step": 5,
        "state_dict_backbone": OrderedDict(weight=torch.arange(6.0).view(2, 3)),
        "state_dict_softmax_fc": {"weight": nn.Parameter(torch.ones(2, 3))},
        "state_optimizer": {
            "state": {0: {"momentum_buffer": torch.ones(2)}},
            "groups": [{"lr": 1}],
        },
        "state_lr_scheduler": Scheduler(),
    } | changes
    torch.save(values, path, pickle_protocol=protocol)
    return values


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_are_found(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "file.pt"
    whole = torch.arange(24, dtype=torch.int64).view(4, 6)
    values = save_small(path, protocol, part=whole[1:3], half=torch.ones(3).bfloat16())
    file = TorchFile(path)
    root = file.mapping(file.root, "root")
    assert root["global_step"] == 5
    weight = file.mapping(root["state_dict_softmax_fc"], "head")["weight"]
    for node, expected in [
        (
            file.mapping(root["state_dict_backbone"], "state")["weight"],
            values["state_dict_backbone"]["weight"],
        ),
        (weight, torch.ones(2, 3)),
        (root["part"], whole[1:3]),
        (root["half"], torch.ones(3).bfloat16()),
    ]:
        tensor = file.tensor(node, "it")
        data = b"".join(bytes(chunk) for chunk in file.chunks(tensor))
        assert tensor.shape == expected.shape
        assert data == expected.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.arange(6).view(2, 3).t(), "does not lie row after row"),
        (torch.zeros(1).expand(5), "does not lie row after row"),
        (torch.zeros(2, dtype=torch.complex64), "has numbers of a kind not known here"),
        (torch.eye(2).to_sparse(), "is no plain tensor; .* without running what the file says"),
        (3, "is no plain tensor"),
    ],
    ids=["transposed", "expanded", "complex", "sparse", "number"],
)
def test_other_tensors_are_not_supported(tmp_path: Path, tensor: Any, words: str) -> None:
    path = tmp_path / "file.pt"
    torch.save({"it": tensor}, path)
    file = TorchFile(path)
    with pytest.raises(UnsupportedError, match=words):
        file.tensor(file.mapping(file.root, "root")["it"], "it")


def test_what_would_run_instead_of_a_tensor_does_not(tmp_path: Path) -> None:
    path, mark = tmp_path / "checkpoint_gpu_0.pt", tmp_path / "evil"
    save_small(path, state_dict_softmax_fc={"weight": Evil(mark)})
    with pytest.raises(
        UnsupportedError, match=r"checkpoint_gpu_0\.pt: .*weight is no plain tensor"
    ):
        import_checkpoint(tmp_path, tmp_path / "out")
    save_small(path, state_dict_softmax_fc=Evil(mark))
    with pytest.raises(CheckpointError, match="state_dict_softmax_fc is no dictionary"):
        import_checkpoint(tmp_path, tmp_path / "out")
    torch.save(Evil(mark), path)
    with pytest.raises(CheckpointError, match="the checkpoint is no dictionary"):
        import_checkpoint(tmp_path, tmp_path / "out")
    assert not mark.exists()


def with_pickle(path: Path, program: bytes, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, data in entries.items():
            archive.writestr(f"archive/data/{name}", data)


def test_modules_that_the_file_names_are_not_imported(tmp_path: Path) -> None:
    assert "antigravity" not in sys.modules
    path = tmp_path / "file.pt"
    with_pickle(path, b"\x80\x02cantigravity\nfly\n)R.")
    assert type(TorchFile(path).root).__name__ == "Call"
    assert "antigravity" not in sys.modules


def storage(count: int = 4, kind: bytes = b"FloatStorage", key: bytes = b"0") -> bytes:
    """Instructions that push a storage."""
    texts = [b"X" + struct.pack("<I", len(text)) + text for text in (b"storage", key, b"cpu")]
    return (
        b"("
        + texts[0]
        + b"ctorch\n"
        + kind
        + b"\n"
        + texts[1]
        + texts[2]
        + b"J"
        + struct.pack("<i", count)
        + b"tQ"
    )


def tensor(where: bytes, first: int, shape: bytes, strides: bytes) -> bytes:
    """A pickle of a tensor on the storage that `where` pushes."""
    arguments = where + b"J" + struct.pack("<i", first) + shape + strides + b"\x89Nt"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"R."


MANY = b"(" + b"K\x01" * 20 + b"t"
TENSORS = {
    "parameter of nothing": (
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
        "is no plain tensor",
    ),
    "good": (tensor(storage(), 0, b"K\x04\x85", b"K\x01\x85"), ""),
    "behind its storage": (tensor(storage(), 1, b"K\x04\x85", b"K\x01\x85"), "within its storage"),
    "before it": (tensor(storage(), -1, b"K\x04\x85", b"K\x01\x85"), "has no sizes"),
    "negative": (tensor(storage(), 0, b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), "has no sizes"),
    "huge": (tensor(storage(), 0, b"\x8a\x07" + b"\x7f" * 7 + b"\x85", b"K\x01\x85"), "within"),
    "huger": (tensor(storage(), 0, b"\x8a\x09" + b"\x7f" * 9 + b"\x85", b"K\x01\x85"), "no sizes"),
    "flat": (tensor(storage(), 0, b"K\x04\x85", b"K\x00\x85"), "row after row"),
    "strides": (tensor(storage(), 0, b"K\x04\x85", b")"), "row after row"),
    "dimensions": (
        tensor(storage(), 0, MANY, MANY),
        "row",
    ),
    "storage's size": (
        tensor(storage(5), 0, b"K\x04\x85", b"K\x01\x85"),
        "has 16 bytes; expected 20",
    ),
    "path": (tensor(storage(4, key=b"../../0"), 0, b"K\x04\x85", b"K\x01\x85"), "is missing in"),
    "other storage": (tensor(storage(kind=b"X"), 0, b"K\x04\x85", b"K\x01\x85"), "not known here"),
    "count": (tensor(storage(-4), 0, b"K\x04\x85", b"K\x01\x85"), "not known here"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_lie(tmp_path: Path, case: str) -> None:
    program, words = TENSORS[case]
    path = tmp_path / "file.pt"
    with_pickle(path, program, **{"0": bytes(16)})
    file = TorchFile(path)
    if not words:
        assert bytes(next(file.chunks(file.tensor(file.root, "it")))) == bytes(16)
        return
    with pytest.raises((CheckpointError, UnsupportedError), match=words) as error:
        file.tensor(file.root, "it")
    assert str(path) in str(error.value)


PICKLES = {
    "empty": (b"", "its pickle is damaged"),
    "no end": (b"\x80\x02N", "its pickle is damaged: .*exhausted"),
    "nothing left": (b"\x80\x02.", "its pickle is damaged"),
    "no mark": (b"\x80\x02t.", "its pickle is damaged"),
    "not in the memo": (b"\x80\x02h\x05.", "its pickle is damaged"),
    "text cut off": (b"\x80\x02X\xff\xff\xff\x7fa.", "its pickle is damaged"),
    "huge number": (b"\x80\x02\x8b\xff\xff\xff\x7f1.", "its pickle is damaged"),
    "no instruction": (b"\x80\x02\xfe.", "its pickle is damaged"),
    "items in a number": (b"\x80\x02K\x01NNs.", "no dictionary"),
    "items in a text": (b"\x80\x02X\x01\0\0\0aNa.", "no list"),
    "odd items": (b"\x80\x02}(Nu.", "its pickle is damaged"),
    "instance": (b"\x80\x02(ios\nsystem\n.", "the instruction INST"),
    "object": (b"\x80\x02(cos\nsystem\no.", "the instruction OBJ"),
    "extension": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "text of protocol 0": (b"S'a'\n.", "the instruction STRING"),
    "name of no text": (b"\x80\x04N" + b"\x85" * 5000 + b"N\x93.", "a function's name is no text"),
    "long": (b"\x80\x02" + b"N0" * 30_000 + b"N.", "the instruction POP"),
    "many": (b"\x80\x02" + b"N" * 2_100_000 + b".", "more than 2000000 instructions"),
    "large": (b" " * (17 << 20), "data.pkl has 17825792 bytes; expected up to 16777216"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_that_are_none(tmp_path: Path, case: str) -> None:
    program, words = PICKLES[case]
    with_pickle(tmp_path / "file.pt", program)
    with pytest.raises((CheckpointError, UnsupportedError), match=words):
        TorchFile(tmp_path / "file.pt")


def test_depth_is_no_danger(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    for program in (
        b"\x80\x02N" + b"\x85" * 30_000 + b".",
        b"\x80\x02" + b"]" * 30_000 + b"a" * 29_999 + b".",
        b"\x80\x02" + b"cos\nsystem\n" * 30_000 + b"N" + b"\x85R" * 30_000 + b".",
        b"\x80\x02]q\0h\0a.",  # a list in itself
        b"\x80\x02}q\0(N" + b"\x85" * 30_000 + b"Nu.",  # a deep key, which is never hashed
    ):
        with_pickle(path, program)
        root = TorchFile(path).root
        del root


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    for program in (b"\x80\x02}(X\1\0\0\0aK\1X\1\0\0\0aK\2u.", b"\x80\x02}(K\1K\1u."):
        with_pickle(path, program)
        file = TorchFile(path)
        with pytest.raises(CheckpointError, match="root has a key twice or one that is no text"):
            file.mapping(file.root, "root")


def edited(change: Callable[[dict[str, bytes]], Any], compression: int = zipfile.ZIP_STORED) -> Any:
    """Writes the archive again, with other entries."""

    def apply(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        change(entries)
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)

    return apply


def twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0], b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(6.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)


ARCHIVES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda p: p.unlink(), "is missing"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read as a zip archive"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "cannot be read as a zip archive"),
    "compressed": (edited(lambda e: None, zipfile.ZIP_DEFLATED), "is compressed"),
    "another archive": (edited(lambda e: e.clear()), "not one of torch.save"),
    "two pickles": (edited(lambda e: e.update({"x/data.pkl": b""})), "not one of torch.save"),
    "storage missing": (edited(lambda e: e.pop("file/data/0")), "file/data/0 is missing"),
    "big-endian": (edited(lambda e: e.update({"file/byteorder": b"big"})), "not little-endian"),
    "entry twice": (twice, "has two entries of one name"),
    "numbers changed": (flip, "file/data/0 is damaged: its CRC is another"),
    "legacy": (
        lambda p: torch.save({}, p, _use_new_zipfile_serialization=False),
        "in the form of torch before 1.6",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_that_are_none(tmp_path: Path, case: str) -> None:
    path = tmp_path / "file.pt"
    save_small(path)
    damage, words = ARCHIVES[case]
    damage(path)
    with pytest.raises((CheckpointError, UnsupportedError), match=words) as error:
        read_small(path)
    assert str(path) in str(error.value)


def read_small(path: Path) -> None:
    file = TorchFile(path)
    root = file.mapping(file.root, "root")
    for name in ("state_dict_backbone", "state_dict_softmax_fc"):
        if name in root:
            for key, node in file.mapping(root[name], name).items():
                for _ in file.chunks(file.tensor(node, key)):
                    pass


@pytest.mark.parametrize("part", ["pickle", "archive"])
def test_no_damage_is_more_than_an_error(tmp_path: Path, part: str) -> None:
    path = tmp_path / "file.pt"
    save_small(path, state_dict_softmax_fc={"weight": Evil(tmp_path / "evil")})
    with zipfile.ZipFile(path) as archive:
        program = archive.read("file/data.pkl")
        entries = {name: archive.read(name) for name in archive.namelist()}
    data, generator, refused = path.read_bytes(), random.Random(part), 0
    opcodes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    for _ in range(500):
        if part == "pickle":
            changed = bytearray(program)
            for _ in range(generator.choice([1, 1, 3])):
                place = generator.randrange(len(changed))
                changed[place : place + generator.randrange(2)] = generator.choice(opcodes)
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for name, entry in entries.items():
                    archive.writestr(name, bytes(changed) if name.endswith(".pkl") else entry)
            path.write_bytes(buffer.getvalue())
        else:
            changed = bytearray(data)
            for _ in range(generator.choice([1, 1, 3])):
                # Mostly at the end, where the directory is.
                place = (
                    len(changed) - 1 - generator.randrange(generator.choice([60, 700, len(data)]))
                )
                changed[place] = generator.choice([0, 1, 255, generator.randrange(256)])
            path.write_bytes(changed)
        try:
            read_small(path)
        except (CheckpointError, UnsupportedError):
            refused += 1
    assert refused > 100
    assert not (tmp_path / "evil").exists()


def broken(change: dict[str, Any]) -> Callable[[Path], Any]:
    return lambda folder: save_small(folder / "checkpoint_gpu_1.pt", **change)


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "none": (lambda f: [path.unlink() for path in f.iterdir()], r"gpu_0\.pt: is missing"),
    "first missing": (lambda f: (f / "checkpoint_gpu_0.pt").unlink(), r"gpu_0\.pt: is missing"),
    "middle missing": (
        lambda f: (f / "checkpoint_gpu_1.pt").rename(f / "checkpoint_gpu_2.pt"),
        r"gpu_1\.pt: is missing",
    ),
    "another step": (broken({"global_step": 6}), r"gpu_1\.pt: step is 6; expected 5, as in "),
    "another epoch": (broken({"epoch": 6}), r"gpu_1\.pt: epoch is 6; expected 1"),
    "another run": (
        broken({"state_dict_softmax_fc": {"weight": torch.ones(2, 4)}}),
        r"gpu_1\.pt: dim is 4; expected 3",
    ),
    "another world size": (
        broken({"state_dict_softmax_fc": {"weight": torch.ones(7, 3)}}),
        r"gpu_0\.pt: has 2 classes; expected 5, if the files are of one run of 2 ranks",
    ),
    "no centres": (broken({"state_dict_softmax_fc": {}}), r"gpu_1\.pt: .* has no weight"),
    "vector": (
        broken({"state_dict_softmax_fc": {"weight": torch.ones(7)}}),
        r"weight is F32 \[7\]; expected F32 \[classes, dim\]",
    ),
    "doubles": (
        broken({"state_dict_softmax_fc": {"weight": torch.ones(2, 3).double()}}),
        r"weight is F64 \[2, 3\]; expected F32",
    ),
    "step of text": (broken({"global_step": "5"}), r"gpu_1\.pt: global_step is no count"),
    "weights only": (
        lambda f: torch.save({"weight": torch.ones(1)}, f / "checkpoint_gpu_1.pt"),
        r"gpu_1\.pt: state_dict_softmax_fc is missing; expected .* save_all_states",
    ),
    "another network": (lambda f: None, r"is none of mobilefacenet, mbf, mbf_large, iresnet"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_that_are_not_one_run(tmp_path: Path, case: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for rank in range(2):
        save_small(source / f"checkpoint_gpu_{rank}.pt")
    damage, words = FOLDERS[case]
    damage(source)
    with pytest.raises((CheckpointError, UnsupportedError), match=words):
        import_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("iresnet18", {"extra": torch.ones(1)}, "extra is not known in iresnet18"),
        ("iresnet18", {"features.bias": None}, "features.bias is missing in iresnet18"),
        (
            "iresnet18",
            {"bn1.weight": torch.ones(3)},
            r"bn1.weight is F32 \[3\]; iresnet18 has \[64\]",
        ),
        (
            "iresnet18",
            {"layer1.2.bn1.weight": torch.ones(64)},
            r"is none of .*iresnet100: it has \[3, 2, 2, 2\] blocks of an IResNet",
        ),
        ("mbf", {"extra": torch.ones(1)}, "extra is not known in mbf"),
        ("mbf", {"conv_sep.layers.2.weight": None}, "conv_sep.layers.2.weight is missing in mbf"),
        ("mbf", {"layers.1.layers.0.weight": None}, "layers.1.layers.0.weight is missing in mbf"),
        (
            "mbf",
            {"layers.0.layers.1.weight": torch.ones(64)},
            r"layers.0.layers.1.weight is F32 \[64\]; mbf has \[128\]",
        ),
        (
            "mbf",
            {"layers.0.layers.0.weight": torch.ones(128, 3, 1, 1)},
            r"layers.0.layers.0.weight is F32 \[128, 3, 1, 1\]; mbf has \[128, 3, 3, 3\]",
        ),
        (
            "mbf",
            {"layers.0.layers.0.weight": torch.ones(192, 3, 3, 3)},
            r"is none of .*\[0, 4, 6, 2\] of a MobileFaceNet whose .* is \[192, 3, 3, 3\]",
        ),
        (
            "mbf_large",
            {"layers.7.layers.3.layers.0.layers.0.weight": None},
            r"is none of .*\[2, 8, 12, 3\] of a MobileFaceNet whose .* is \[256, 3, 3, 3\]",
        ),
        (
            "mbf_large",
            {"features.layers.2.weight": torch.ones(FEATURES, 512, 1, 1)},
            r"features.layers.2.weight is \[8, 512, 1, 1\]",
        ),
    ],
)
def test_another_backbone_is_named(
    tmp_path: Path, name: str, change: dict[str, Any], words: str
) -> None:
    with torch.device("meta"):
        state = THEIRS[name]().state_dict()
    # Small: a tensor that is looked at has its numbers, any other a single one.
    stem = ("conv1.weight", "bn1.weight", "layers.0.layers.0.weight")
    last = ("fc.weight", "features.layers.2.weight")
    small = {
        key: torch.zeros(t.shape) if key in stem + last else torch.zeros(()).expand(t.shape)
        for key, t in state.items()
    }
    small |= change
    path = tmp_path / "checkpoint_gpu_0.pt"
    save_small(path, state_dict_backbone={k: v for k, v in small.items() if v is not None})
    with pytest.raises((CheckpointError, UnsupportedError), match=words):
        import_checkpoint(tmp_path, tmp_path / "out")
