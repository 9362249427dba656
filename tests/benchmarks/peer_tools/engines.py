"""The engines behind one interface: built around an input, then run again and again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np


class Runner(Protocol):
    """An engine with a model and an input of float32 [N, 3, H, W]."""

    version: str

    def run(self) -> None:
        """One inference of the whole input, from the input to the output in memory."""

    def output(self) -> np.ndarray:
        """What the last run gave: [N, D]."""


class PyEdge:
    """Ours: one session, or several of one thread each that share the batch."""

    def __init__(
        self, x: np.ndarray, path: str, threads: int = 1, sessions: int = 1, isa: str | None = None
    ) -> None:
        import pyedge

        self.version = pyedge.__version__
        first = pyedge.Session(path, threads, isa)
        self.sessions = [first, *(pyedge.Session(first, threads, isa) for _ in range(sessions - 1))]
        self.parts = [np.ascontiguousarray(part) for part in np.array_split(x, sessions)]
        self.results: list[np.ndarray] = []
        self.pool = ThreadPoolExecutor(sessions) if sessions > 1 else None

    def run(self) -> None:
        if self.pool is None:
            self.results = [self.sessions[0].run(self.parts[0])[0]]
        else:
            jobs = zip(self.sessions, self.parts, strict=True)
            self.results = list(self.pool.map(lambda job: job[0].run(job[1])[0], jobs))

    def output(self) -> np.ndarray:
        return np.concatenate(self.results)


class OnnxRuntime:
    def __init__(self, x: np.ndarray, path: str, threads: int = 1) -> None:
        import onnxruntime

        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input(self.session.get_inputs()[0].name, x)
        self.binding.bind_output(self.session.get_outputs()[0].name)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def output(self) -> np.ndarray:
        return self.binding.copy_outputs_to_cpu()[0]


class OpenVino:
    """One request at a time, or as many as the throughput mode wants, each of `piece` images."""

    def __init__(
        self,
        x: np.ndarray,
        path: str,
        threads: int = 1,
        precision: str = "f32",
        throughput: bool = False,
        piece: int = 0,
    ) -> None:
        import openvino

        self.version = openvino.__version__.split("-")[0]
        core = openvino.Core()
        model = core.read_model(path)
        self.pieces = np.split(x, len(x) // piece) if piece else [x]
        model.reshape(list(self.pieces[0].shape))
        config = {
            "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
        }
        compiled = core.compile_model(model, "CPU", config)
        self.queue = openvino.AsyncInferQueue(compiled) if throughput else None
        self.request = compiled.create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(self.pieces[0], shared_memory=True))
        self.results: list[np.ndarray] = [np.empty(0)] * len(self.pieces)
        if self.queue is not None:
            self.queue.set_callback(self._keep)

    def _keep(self, request: Any, index: int) -> None:
        self.results[index] = request.get_output_tensor().data.copy()

    def run(self) -> None:
        if self.queue is None:
            self.request.infer(share_outputs=True)
            return
        for index, piece in enumerate(self.pieces):
            self.queue.start_async([piece], index, share_inputs=True)
        self.queue.wait_all()

    def output(self) -> np.ndarray:
        if self.queue is None:
            return self.request.get_output_tensor().data
        return np.concatenate(self.results)


class Ncnn:
    """One image at a time; `storage` names what activations and weights are kept as."""

    def __init__(self, x: np.ndarray, path: str, threads: int = 1, storage: str = "fp32") -> None:
        import ncnn

        self.version, self.ncnn = ncnn.__version__, ncnn
        self.net = ncnn.Net()
        options = self.net.opt
        options.num_threads = threads
        options.use_fp16_packed = options.use_fp16_storage = storage == "fp16"
        options.use_fp16_arithmetic = storage == "fp16"
        options.use_bf16_packed = options.use_bf16_storage = storage == "bf16"
        if self.net.load_param(f"{path}.param") or self.net.load_model(f"{path}.bin"):
            raise ValueError(f"{path}: ncnn cannot load it")
        self.x = x
        self.inputs = [ncnn.Mat(np.ascontiguousarray(image)) for image in x]
        self.results: list = []

    def run(self) -> None:
        results = []
        for mat in self.inputs:
            extractor = self.net.create_extractor()
            extractor.input("in0", mat)
            status, result = extractor.extract("out0")
            if status:
                raise RuntimeError(f"ncnn: extract gave {status}")
            results.append(result)
        self.results = results

    def output(self) -> np.ndarray:
        return np.stack([np.array(result).reshape(-1) for result in self.results])


class Mnn:
    """`precision` and `memory` as MNN names them: low, normal, high."""

    def __init__(
        self,
        x: np.ndarray,
        path: str,
        threads: int = 1,
        precision: str = "high",
        memory: str = "normal",
    ) -> None:
        import MNN

        self.version = MNN.version()
        settings = {
            "backend": "CPU",
            "precision": precision,
            "memory": memory,
            "power": "normal",
            "numThread": threads,
        }
        self.runtime = MNN.nn.create_runtime_manager((settings,))
        self.net = MNN.nn.load_module_from_file(
            path, ["input"], ["output"], runtime_manager=self.runtime
        )
        self.input = MNN.expr.const(x, list(x.shape), MNN.expr.NCHW)
        self.result = np.empty(0)

    def run(self) -> None:
        self.result = self.net.forward(self.input).read()

    def output(self) -> np.ndarray:
        return np.array(self.result)


ENGINES: dict[str, type] = {
    "pyedge": PyEdge,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "ncnn": Ncnn,
    "mnn": Mnn,
}
