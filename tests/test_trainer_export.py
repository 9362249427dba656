"""From a checkpoint to a native file and a gallery of the training's people."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from checkpoints import manifest
from models import randomize
from torch import nn
from typer.testing import CliRunner, Result

from pyedge import Metadata, Session
from pyedge.cli.app import app
from pyedge.errors import CheckpointError
from pyedge.images import load_image
from pyedge.trainer import backbones
from pyedge.trainer.checkpoint import Checkpoint, save
from pyedge.trainer.distributed import Group
from pyedge.trainer.export import export_onnx, load_backbone, metadata
from pyedge.trainer.gallery import read_gallery, write_gallery
from pyedge.trainer.manifest import Network, sealed
from pyedge.trainer.partition import Partition
from pyedge.trainer.shards import reshard
from pyedge.trainer.tensor_file import Format, write_tensors

CLASSES = 7


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of torch that wait for a busy CPU cost more than they bring to small networks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ARCFACE = {"color": "rgb", "input_size": [112, 112], "mean": 127.5, "std": 127.5}


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def network(name: str, features: int = 128, size: int = 112) -> nn.Module:
    return randomize(backbones.backbone(name, features, size), 5)


def checkpoint_of(
    folder: Path, name: str, features: int = 128, size: int = 112, **others: Any
) -> tuple[Checkpoint, nn.Module]:
    """A checkpoint in two shards, and its backbone."""
    module = network(name, features, size)
    centers = torch.randn(CLASSES, features, generator=torch.Generator().manual_seed(2))
    described = manifest(
        Partition((CLASSES,)),
        dim=features,
        network=Network(name, features, size),
        **({"preprocessing": ARCFACE | {"input_size": [size, size]}} | others),
    )
    state = {f"network/{key}": value for key, value in module.state_dict().items()}
    state["optimizer/ignored"] = torch.zeros(3)
    names = [f"person {index}" for index in range(CLASSES)]
    whole = save(folder, Group(), described, state, {"centers": centers}, label_names=names)
    reshard(Checkpoint(whole), folder / "shards", Partition((3, 4)))
    return Checkpoint(folder / "shards"), module


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest error of a feature, as a share of its length."""
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(errors.max())


@pytest.fixture(scope="module")
def crops(assets: Path) -> np.ndarray:
    """A hundred faces, uint8 [100, 112, 112, 3]."""
    files = sorted((assets / "lfw" / "aligned").rglob("*.jpg"))[:100]
    assert len(files) == 100
    return np.stack([load_image(file) for file in files])


@pytest.mark.parametrize(
    ("name", "count"), [("mobilefacenet", 100), ("mbf", 30), ("mbf_large", 12), ("iresnet18", 6)]
)
def test_features_of_faces_survive_the_way_to_native_fp32(
    tmp_path: Path, crops: np.ndarray, name: str, count: int
) -> None:
    _, module = checkpoint_of(tmp_path, name)
    out = tmp_path / "network.pye"
    result = cli("convert", tmp_path / "shards", "-o", out, "--json")
    assert result.exit_code == 0, result.output
    session = Session(out)
    pixels = session.metadata.apply(crops[:count])
    with torch.no_grad():
        expected = torch.cat([module(part) for part in torch.from_numpy(pixels).split(10)]).numpy()
    found = np.concatenate([session.run(part)[0] for part in np.array_split(pixels, count // 3)])
    assert relative(found, expected) <= 1e-4
    print(f"{name}: {relative(found, expected):.1e} of the feature's length")


def test_convert_takes_a_checkpoint(tmp_path: Path) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, "mobilefacenet", 16, 32, preprocessing={"color": "bgr"})
    out, gallery = tmp_path / "network.pye", tmp_path / "people.gallery"
    result = cli("convert", checkpoint.path, "-o", out, "--gallery", gallery, "--mean", "3")
    assert result.exit_code == 0, result.output
    found = Session(out).metadata
    assert (found.color, found.input_size, found.mean) == ("bgr", (32, 32), (3.0, 3.0, 3.0))
    assert (found.model_name, found.embedding_size) == ("mobilefacenet", 16)
    people = read_gallery(gallery)
    assert people.feature_space == found.feature_space != ""
    assert people.names == checkpoint.label_names()
    centers = checkpoint.rows(range(CLASSES))["centers"].double()
    expected = (centers / centers.norm(dim=1, keepdim=True)).float().numpy()
    np.testing.assert_array_equal(people.embeddings, expected)
    assert people.embeddings.dtype == np.float32
    # The same from the folder of the run, in its one shard.
    again = tmp_path / "again.gallery"
    result = cli("convert", tmp_path, "-o", out, "--gallery", again, "--mean", "3")
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == gallery.read_bytes()


def test_export_is_deterministic_and_of_any_batch(tmp_path: Path) -> None:
    checkpoint, module = checkpoint_of(tmp_path, "iresnet18", 16, 32)
    data = export_onnx(load_backbone(checkpoint), 32)
    assert data == export_onnx(module, 32)
    graph = onnx.load_from_string(data).graph
    shapes = [value.type.tensor_type.shape.dim for value in (graph.input[0], graph.output[0])]
    assert [dim.dim_param or dim.dim_value for dim in shapes[0]] == ["batch", 3, 32, 32]
    assert [dim.dim_param or dim.dim_value for dim in shapes[1]] == ["batch", 16]
    assert metadata(checkpoint) == Metadata(
        color="rgb",
        input_size=(32, 32),
        mean=(127.5,) * 3,
        scale=(1 / 127.5,) * 3,
        model_name="iresnet18",
    )


def test_weights_of_another_precision_are_exported(tmp_path: Path) -> None:
    module = network("mobilefacenet", 8, 16)
    described = manifest(Partition((1,)), dim=8, network=Network("mobilefacenet", 8, 16))
    state = {f"network/{key}": value for key, value in module.double().state_dict().items()}
    path = save(tmp_path, Group(), described, state, {"centers": torch.ones(1, 8)})
    loaded = load_backbone(Checkpoint(path))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(x), module.eval()(x.double()).float())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "resnet"}, r"manifest\.json: network: backbone is 'resnet'; expected"),
        ({"size": 33}, r"manifest\.json: network: size is 33; expected a multiple of 16"),
        ({"name": "iresnet18"}, r"backbone\.safetensors: network/.*; iresnet18 has"),
        ({"size": 48}, r"network/layers.18.0.weight is \[512, 1, 2, 2\]; .* has \[512, 1, 3, 3\]"),
        ({"features": 1 << 20}, r"network/layers.19.0.weight is \[16, 512, 1, 1\]; .* \[1048576"),
    ],
)
def test_another_network_is_named(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, "mobilefacenet", 16, 32)
    path = checkpoint.path / "manifest.json"
    values = json.loads(path.read_text())
    del values["digest"]
    values["network"].update(wrong)
    path.write_bytes(sealed(values))
    with pytest.raises(CheckpointError, match=words):
        load_backbone(Checkpoint(checkpoint.path))


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    checkpoint, _ = checkpoint_of(tmp_path, "mobilefacenet", 16, 32)
    out = tmp_path / "network.pye"
    model = tmp_path / "network.onnx"
    model.write_bytes(export_onnx(load_backbone(checkpoint), 32))
    (tmp_path / "empty").mkdir()
    for arguments, words in [
        ([model, "-o", out, "--gallery", tmp_path / "g"], "--gallery: needs a checkpoint"),
        ([tmp_path / "empty", "-o", out], "empty: is no checkpoint"),
        ([checkpoint.path, "-o", out, "--gallery", out], "is the same file as --out"),
        ([checkpoint.path, "-o", tmp_path / "no" / "x.pye"], "the folder for --out"),
    ]:
        result = cli("convert", *arguments)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    os.truncate(checkpoint.path / "shard-00001-of-00002.safetensors", 300)
    result = cli("convert", checkpoint.path, "-o", out)
    assert "shard-00001-of-00002.safetensors: has 300 bytes" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("center", "words"), [(0.0, "has length 0;"), (float("nan"), "has length nan;")]
)
def test_centre_without_direction(tmp_path: Path, center: float, words: str) -> None:
    centers = torch.ones(CLASSES, 6)
    centers[5] = center
    path = save(tmp_path, Group(), manifest(Partition((CLASSES,))), {}, {"centers": centers})
    target = tmp_path / "gallery"
    target.write_bytes(b"before")
    with pytest.raises(CheckpointError, match=f"the centre of class 5 {words}"):
        write_gallery(Checkpoint(path), target)
    assert target.read_bytes() == b"before"
    assert not list(tmp_path.glob(".gallery*"))


def test_gallery_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "gallery"

    def write(names: bytes, metadata: dict[str, str], dtype: str = "F32") -> None:
        values = {"embeddings": bytes(16), "names": names}
        formats = {"embeddings": Format(dtype, (1, 4)), "names": Format("U8", (len(names),))}
        path.unlink(missing_ok=True)
        write_tensors(path, formats, lambda name: [values[name]], metadata)

    good = {"format": "pyedge-gallery"}
    write(b'["a"]', good)
    assert read_gallery(path).names == ["a"]
    for names, about, dtype, words in [
        (b'["a"]', {}, "F32", "is no gallery"),
        (b'["a"]', good, "I32", r"embeddings are I32 \[1, 4\]"),
        (b'["a", "b"]', good, "F32", "has 2 names; expected 1"),
        (b"[1]", good, "F32", "names is no array of texts"),
        (b"[", good, "F32", "not JSON"),
    ]:
        write(names, about, dtype)
        with pytest.raises(CheckpointError, match=words):
            read_gallery(path)
    with pytest.raises(CheckpointError, match="is missing"):
        read_gallery(tmp_path / "nothing")
