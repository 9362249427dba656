"""`pyedge train` and the demonstration, from the command line to the pictures."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces import write_faces
from test_cli import assert_refused, cli, cli_json

from pyedge.trainer import checkpoint
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


@pytest.fixture
def training(faces: str, description: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Two ranks in a session of their own, which have saved something and would go on for long."""
    run = tmp_path / "run"
    command = [sys.executable, "-c", "from pyedge.cli.app import app; app()", "train", description]
    options = ["--data", faces, "--out", run, "--ranks", 2]
    endless = ["--set", "steps = 1000000", "--set", "checkpoint_every = 1"]
    process = subprocess.Popen(
        [str(word) for word in (*command, *options, *endless)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        while not checkpoint.steps(run):
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process numbers of the ranks."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [n for n in map(int, found) if "spawn_main" in Path(f"/proc/{n}/cmdline").read_text()]


@pytest.mark.parametrize("whom", ["all of the terminal", "the parent"])
def test_interrupt_leaves_a_checkpoint(
    training: subprocess.Popen[str], whom: str, tmp_path: Path
) -> None:
    """Whoever hears of it, each rank is asked once."""
    if whom == "the parent":
        os.kill(training.pid, signal.SIGTERM)
    else:
        os.killpg(training.pid, signal.SIGINT)
    out, errors = training.communicate(timeout=60)
    assert (training.returncode, errors) == (0, "")
    assert "interrupted; the same command goes on" in out
    checkpoint.Checkpoint(checkpoint.find(tmp_path / "run")).verify()


def test_ranks_end_with_their_parent(training: subprocess.Popen[str]) -> None:
    ends = [os.pidfd_open(rank) for rank in ranks_of(training)]
    assert len(ends) == 2
    training.kill()
    for end in ends:
        assert select.select([end], [], [], 30)[0]
        os.close(end)


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
