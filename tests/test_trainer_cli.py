"""`pyedge train` and the demonstration, from the command line to the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faces import write_faces
from test_cli import assert_refused, cli, cli_json

from pyedge.trainer.demo import run

RUN = """
backbone = "iresnet10"
width = 4
size = 16
features = 8
batch = 8
loss = "cosface"
loss_options = {scale = 8.0, margin = 0.1}
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_faces(tmp_path_factory.mktemp("faces"), 12, 6)


@pytest.fixture
def description(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN)
    return path


def test_train_convert_and_resume(faces: str, description: Path, tmp_path: Path) -> None:
    options = ["--data", faces, "--out", tmp_path / "run", "--set", "steps = 3"]
    found = cli_json("train", description, *options)
    assert found["finished"]
    assert found["steps"] == 3
    assert found["classes"] == 12
    assert Path(found["curve"]).read_bytes().startswith(b"\x89PNG")
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 3
    result = cli("train", description, *options[:-1], "steps = 5")
    assert result.exit_code == 0, result.output
    assert "5 of 5 steps over 12 classes trained" in result.stdout
    out = tmp_path / "model.pye"
    people = tmp_path / "people.safetensors"
    assert cli("convert", tmp_path / "run", "-o", out, "--gallery", people).exit_code == 0
    assert cli_json("inspect", out)
    assert people.is_file()


def test_plan() -> None:
    found = cli_json(*("train", "--plan", "--classes", 100_000_000, "--dim", 128, "--ranks", 100))
    assert found["kept"]["class centres"] == 1_000_000 * 128 * 4
    assert found["options"]["batch_per_rank"] == 64
    text = cli("train", "--plan", "--classes", 1000, "--ranks", 2, "--batch", 32).stdout
    assert "16 images on each" in text


def test_refused(faces: str, description: Path, tmp_path: Path) -> None:
    here = ["--data", faces, "--out", tmp_path / "run"]
    for arguments, words in (
        ([description, "--data", faces], "--out is missing"),
        ([description, "--out", tmp_path / "run"], "--data is missing"),
        ([description, *here, "--set", "lr"], "expected KEY=VALUE"),
        ([description, *here, "--set", "speed = 1"], "unknown key 'speed'"),
        ([description, *here, "--loss", "hinge"], "loss is 'hinge'; expected softmax"),
        ([description, *here, "--classes", 5], "--classes and --dim are of --plan"),
        ([description, *here, "--ranks", 3], "cannot be shared evenly by 3 ranks"),
        ([tmp_path / "none.toml", *here], "cannot be read"),
        (["--plan"], "--classes is missing"),
    ):
        assert_refused(cli("train", *arguments), words)
    assert not (tmp_path / "run").exists()


def test_demonstration(faces: str, tmp_path: Path) -> None:
    """The whole way on made-up people, in little time: every form of the network judges alike."""
    found = run(
        [faces], tmp_path, ranks=2, hold_out=0.3, width=4, size=16, batch=8, epochs=0, steps=20
    )
    assert found["judged_on"]["people"] > 1
    assert found["trained_on"]["people"] + found["judged_on"]["people"] == 12
    areas = found["auc"]
    assert areas["native FP32"] == pytest.approx(areas["torch FP32"], abs=1e-3)
    assert areas["native INT8"] == pytest.approx(areas["torch FP32"], abs=0.05)
    assert (tmp_path / "curve.png").is_file()
