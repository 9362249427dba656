"""What a session promises its caller."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pyedge
from pyedge import _core
from pyedge.converters import native
from pyedge.converters.ir import Graph, Node, Tensor

AFFINITIES = ("all", "big", "little")
ISAS = [name for name, row in pyedge.features()["isa"].items() if row["available"]]
INFINITY = float("inf")


def network(channels: int = 17) -> Graph:
    """Two convolutions, a quantized pooling between them and NCHW at both ends."""
    rng = np.random.default_rng(5)
    graph = Graph(inputs=["x"], outputs=["y"])
    graph.tensors["x"] = Tensor("x", "f32", (-1, 3, -1, -1))
    for name in ("nhwc", "first", "restored", "second", "y"):
        graph.add_value(name)
    for name in ("q", "pooled"):
        graph.tensors[name] = Tensor(name, "i8", scale=0.05)
    graph.add_constant("w1", rng.normal(size=(channels, 3, 3, 3)))
    graph.add_constant("w2", rng.normal(size=(5, 1, 1, channels)))
    graph.add_constant("b2", rng.normal(size=5))
    conv = {
        "stride_h": 1,
        "stride_w": 1,
        "dilation_h": 1,
        "dilation_w": 1,
        "groups": 1,
        "act_min": 0.0,
        "act_max": INFINITY,
    }
    pads = dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1)
    window = {
        "global": 0,
        "kernel_h": 2,
        "kernel_w": 2,
        "stride_h": 2,
        "stride_w": 2,
        "ceil_mode": 0,
    }
    no_pads = dict.fromkeys(pads, 0)
    graph.nodes = [
        Node("transpose", "to_nhwc", ["x"], ["nhwc"], {"perm": [0, 2, 3, 1]}),
        Node("conv", "conv1", ["nhwc", "w1"], ["first"], conv | pads),
        Node("quantize", "quantize", ["first"], ["q"]),
        Node("max_pool", "pool", ["q"], ["pooled"], window | no_pads),
        Node("dequantize", "dequantize", ["pooled"], ["restored"]),
        Node("conv", "conv2", ["restored", "w2", "b2"], ["second"], conv | no_pads),
        Node("transpose", "to_nchw", ["second"], ["y"], {"perm": [0, 3, 1, 2]}),
    ]
    return graph


@pytest.fixture(scope="module")
def model() -> bytes:
    return native.write(network())


@pytest.fixture
def room_for_threads() -> Iterator[None]:
    """Threads run at once however few CPUs there are."""
    before = _core.thread_budget()
    pyedge.set_thread_budget(8)
    yield
    pyedge.set_thread_budget(before)


def images(batch: int, height: int = 13, width: int = 18) -> np.ndarray:
    return np.random.default_rng(batch).normal(size=(batch, 3, height, width)).astype(np.float32)


def test_describes_inputs_and_outputs(model: bytes) -> None:
    session = pyedge.Session(model)
    assert session.inputs == [pyedge.TensorInfo("x", (-1, 3, -1, -1), "float32")]
    assert session.outputs == [pyedge.TensorInfo("y", (-1, 5, -1, -1), "float32")]


@pytest.mark.parametrize("batch", [1, 3, 8, 9, 20])
@pytest.mark.parametrize("isa", ISAS)
def test_a_batch_gives_the_bytes_of_its_images(model: bytes, isa: str, batch: int) -> None:
    session = pyedge.Session(model, isa=isa)
    x = images(batch)
    (y,) = session.run(x)
    assert y.shape == (batch, 5, 6, 9)
    assert y.dtype == np.float32
    for i in range(batch):
        assert session.run(x[i : i + 1])[0].tobytes() == y[i : i + 1].tobytes()


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("isa", ISAS)
def test_threads_do_not_change_the_result(
    model: bytes, isa: str, threads: int, room_for_threads: None
) -> None:
    x = images(3)
    expected = pyedge.Session(model, isa=isa).run(x)[0]
    for affinity in AFFINITIES:
        session = pyedge.Session(model, threads, isa, affinity=affinity)
        assert session.run(x)[0].tobytes() == expected.tobytes()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux's affinity")
def test_the_caller_keeps_its_cpus(model: bytes) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(before)})
        for affinity in AFFINITIES:
            session = pyedge.Session(model, 2, affinity=affinity)
            # One CPU is big and little at once; where the system tells nothing of it, any will do.
            assert session.cpus in ([], [max(before)])
            session.run(images(1))
            assert os.sched_getaffinity(0) == {max(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_unknown_affinities_are_refused(model: bytes) -> None:
    with pytest.raises(pyedge.InvalidArgumentError, match="all, big or little"):
        pyedge.Session(model, affinity="medium")


def test_the_thread_budget_is_a_number_of_threads(room_for_threads: None) -> None:
    pyedge.set_thread_budget(3)
    assert _core.thread_budget() == 3
    for wrong in (0, -1, 1.5, "2", 100_000):
        with pytest.raises(pyedge.InvalidArgumentError, match="threads"):
            pyedge.set_thread_budget(wrong)  # type: ignore[arg-type]


def test_shapes_may_alternate(model: bytes) -> None:
    session = pyedge.Session(model)
    small, large = images(2, 5, 4), images(1, 40, 33)
    first = session.run(small)[0]
    assert session.run(large)[0].shape == (1, 5, 20, 16)
    assert session.run(small)[0].tobytes() == first.tobytes()


def test_takes_a_file_bytes_or_a_session(model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pye"
    path.write_bytes(model)
    x = images(1)
    expected = pyedge.Session(model).run(x)[0]
    from_file = pyedge.Session(path)
    assert from_file.run(x)[0].tobytes() == expected.tobytes()
    assert pyedge.Session(from_file).run(x)[0].tobytes() == expected.tobytes()
    assert from_file.sha256 == pyedge.Session(model).sha256


def test_memory_order_of_the_input_does_not_matter(model: bytes) -> None:
    session = pyedge.Session(model)
    x = images(2)
    assert session.run(np.asfortranarray(x))[0].tobytes() == session.run(x)[0].tobytes()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images(1).astype(np.float64), "float32, got float64"),
        (images(1)[0], r"\[any, 3, any, any\] .*, got \[3, 13, 18\]"),
        (images(1)[:, :2], r"got \[1, 2, 13, 18\]"),
        (images(1)[:0], r"got \[0, 3, 13, 18\]"),
        (images(1)[:, :, :1, :1], "max_pool"),
        ([images(1), images(1)], "takes 1, got 2"),
        ("x", "NumPy array, or a list of them, got str"),
        ([None], "NumPy array, got NoneType"),
        (images(1) * np.float32("nan"), "not finite"),
        (np.where(images(1) > 2, np.float32("inf"), images(1)), "not finite"),
    ],
)
def test_wrong_inputs_are_refused(model: bytes, x: object, message: str) -> None:
    with pytest.raises(pyedge.InvalidArgumentError, match=message):
        pyedge.Session(model).run(x)  # type: ignore[arg-type]


def test_unknown_instruction_sets_are_refused(
    model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pyedge.InvalidArgumentError, match="there is no vax"):
        pyedge.Session(model, isa="vax")
    monkeypatch.setenv("PYEDGE_ISA", "reference")
    assert pyedge.Session(model).isa == "reference"
    assert pyedge.Session(model, isa=ISAS[-1]).isa == ISAS[-1]
    monkeypatch.setenv("PYEDGE_ISA", "pdp11")
    with pytest.raises(pyedge.InvalidArgumentError, match="there is no pdp11"):
        pyedge.Session(model)


@pytest.mark.parametrize("threads", [0, -1, 100_000, 2**40, 1.5, "2"])
def test_unusable_thread_counts_are_refused(model: bytes, threads: int) -> None:
    with pytest.raises(pyedge.InvalidArgumentError, match="threads"):
        pyedge.Session(model, threads)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pye"):
        pyedge.Session(tmp_path / "nowhere.pye")
    with pytest.raises(IsADirectoryError):
        pyedge.Session(tmp_path)
    empty = tmp_path / "empty.pye"
    empty.touch()
    with pytest.raises(pyedge.InvalidModelError, match=r"empty\.pye: file: 0 bytes"):
        pyedge.Session(empty)


def test_only_embedders_embed(model: bytes) -> None:
    crops = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(pyedge.InvalidArgumentError, match=r"no embedding: .* y \[-1, 5, -1, -1\]"):
        pyedge.Session(model).embed(crops)
    graph = network()
    graph.metadata = pyedge.Metadata("rgb", (2, 2))
    graph.tensors["x"].shape = (-1, 3, 2, 2)  # at this size it gives one vector
    session = pyedge.Session(native.write(graph))
    features = session.embed(crops[:, :2, :2] + np.uint8(9))
    assert features.shape == (2, 5)
    (raw,) = session.run(session.metadata.apply(crops[:, :2, :2] + np.uint8(9)))
    for row, feature in zip(raw.reshape(2, 5), features, strict=True):
        total = 0.0
        for value in row.tolist():
            total += value * value
        expected = row.astype(np.float64) / max(math.sqrt(total), 1e-12)
        assert feature.tobytes() == expected.astype(np.float32).tobytes()
    assert session.embed(crops[:0]).shape == (0, 5)


def test_kernels_follow_the_instruction_set(model: bytes) -> None:
    for isa in ISAS:
        session = pyedge.Session(model, isa=isa)
        allowed = ISAS[: ISAS.index(isa) + 1]
        for layer in session.describe([[1, 3, 8, 8]])["layers"]:
            assert layer["kernel"].rsplit("_", 1)[1] in allowed


def test_describe_counts_multiply_accumulates(model: bytes) -> None:
    description = pyedge.Session(model).describe([[2, 3, 8, 6]])
    assert description["macs"] == 2 * (8 * 6 * 17 * 27 + 4 * 3 * 17 * 5)
    assert [layer["op"] for layer in description["layers"]] == [node.op for node in network().nodes]
    assert description["file_bytes"] == len(model)
    assert description["arena_bytes"] > 0


def test_prepare_makes_the_plan(model: bytes) -> None:
    session = pyedge.Session(model)
    session.prepare([[2, 3, 13, 18]])
    memory = session.describe([[2, 3, 13, 18]])
    assert memory["arena_bytes"] > 0
    session.run(images(2))
    assert session.describe([[2, 3, 13, 18]]) == memory
    with pytest.raises(pyedge.InvalidArgumentError, match="max_pool"):
        session.prepare([[1, 3, 1, 1]])


def test_taps_are_the_activations(model: bytes) -> None:
    session = pyedge.Session(model)
    x = images(2)
    taps = session.run_taps(x)
    assert set(taps) == {"x", "nhwc", "first", "q", "pooled", "restored", "second", "y"}
    assert np.array_equal(taps["nhwc"], x.transpose(0, 2, 3, 1))
    rounded = np.rint(taps["first"] * np.float32(1 / 0.05))
    assert np.array_equal(taps["q"], np.clip(rounded, -128, 127).astype(np.int8))
    assert np.array_equal(taps["y"], session.run(x)[0])
    assert list(session.run_taps(x, ["q"])) == ["q"]


def test_profile_times_every_layer(model: bytes) -> None:
    seconds = pyedge.Session(model).profile(images(1), repeats=3)
    assert seconds.shape == (3, len(network().nodes))
    assert (seconds >= 0).all()


def test_one_session_serves_several_threads(model: bytes, room_for_threads: None) -> None:
    session = pyedge.Session(model, threads=2)
    inputs = [images(1 + i % 3, 9 + i, 12) for i in range(4)]
    expected = [pyedge.Session(model).run(x)[0].tobytes() for x in inputs]
    wrong: list[int] = []

    def call(i: int) -> None:
        if any(session.run(inputs[i])[0].tobytes() != expected[i] for _ in range(20)):
            wrong.append(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_gets_its_own_threads(model: bytes, room_for_threads: None) -> None:
    session = pyedge.Session(model, threads=3)
    x = images(3)
    expected = session.run(x)[0].tobytes()
    child = os.fork()
    if child == 0:
        # The parent's workers do not exist here. Whatever happens, this process ends here too.
        status = 1
        try:
            signal.alarm(20)
            status = 0 if session.run(x)[0].tobytes() == expected else 2
            del session
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert session.run(x)[0].tobytes() == expected


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_idle_threads_sleep(model: bytes) -> None:
    def tasks() -> set[str]:
        return {path.name for path in Path("/proc/self/task").iterdir()}

    before = tasks()
    session = pyedge.Session(model, threads=4)
    workers = tasks() - before
    assert len(workers) == 3
    session.run(images(3))
    for worker in workers:
        # Once its share is done a worker goes to sleep; it may need a moment to get there.
        for _ in range(1000):
            state = Path(f"/proc/self/task/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "S":
                break
            threading.Event().wait(0.01)
        assert state == "S"
    assert tasks() - before == workers
    assert len(tasks() - before) == 3
    single = pyedge.Session(model)
    assert tasks() - before == workers
    del session, single
    assert not (tasks() - before) & workers


def test_flushing_of_denormals_by_the_caller_does_not_matter() -> None:
    torch = pytest.importorskip("torch")
    graph = Graph(inputs=["x"], outputs=["y"])
    graph.tensors["x"] = Tensor("x", "f32", (-1, 4))
    graph.add_value("y")
    graph.add_constant("w", np.eye(4) * 0.5)
    bounds = {"act_min": -INFINITY, "act_max": INFINITY}
    graph.nodes = [Node("fully_connected", "halve", ["x", "w"], ["y"], bounds)]
    x = np.full((1, 4), 1e-40, np.float32)
    for isa in ISAS:
        session = pyedge.Session(native.write(graph), isa=isa)
        torch.set_flush_denormal(True)
        try:
            (y,) = session.run(x)
        finally:
            torch.set_flush_denormal(False)
        assert np.array_equal(y.view(np.uint32), (x * np.float32(0.5)).view(np.uint32))


def test_features_name_every_kernel_set() -> None:
    features = pyedge.features()
    assert features["cpu"]
    assert features["isa"]["reference"]["available"]
    assert features["default_isa"] in ISAS
    for row in features["isa"].values():
        assert row["available"] == (bool(row["kernels"]) and not row["missing_features"])
