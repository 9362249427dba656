"""From a checkpoint to what runs: the backbone as ONNX, which the converter takes."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace

import torch
from torch import nn

from pyedge.errors import CheckpointError, InvalidArgumentError
from pyedge.metadata import Metadata
from pyedge.trainer.backbones import backbone
from pyedge.trainer.checkpoint import NETWORK, Checkpoint
from pyedge.trainer.manifest import BACKBONE, MANIFEST

OPSET = 13


def load_backbone(checkpoint: Checkpoint) -> nn.Module:
    """The backbone with the weights of the checkpoint, in float32, for inference.

    Raises:
        CheckpointError: no such network, or tensors that are not this network's.
    """
    network = checkpoint.manifest.network
    try:
        with torch.device("meta"):  # no memory yet: the sizes are the file's word
            module = backbone(network.name, network.features, network.size, width=network.width)
    except InvalidArgumentError as error:
        raise CheckpointError(f"{checkpoint.path / MANIFEST}: network: {error}") from error
    expected = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {
        name.removeprefix(NETWORK): list(entry.shape)
        for name, entry in checkpoint.headers[BACKBONE].tensors.items()
        if name.startswith(NETWORK)
    }
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{checkpoint.path / BACKBONE}: {NETWORK}{name:.80} is "
                f"{found.get(name, 'not there')}; {network.name} has "
                f"{expected.get(name, 'no such tensor')}"
            )
    state = checkpoint.backbone(NETWORK)
    module.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in state.items()}, assign=True
    )
    return module.eval()


def export_onnx(module: nn.Module, size: int) -> bytes:
    """The network as ONNX: `input` float32 [batch, 3, size, size] to `embedding` [batch, features].

    The same module gives the same bytes. BatchNorms stay: the converter folds them.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 3, size, size),),
            buffer,
            input_names=["input"],
            output_names=["embedding"],
            opset_version=OPSET,
            dynamic_axes={"input": {0: "batch"}, "embedding": {0: "batch"}},
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    return buffer.getvalue()


def metadata(checkpoint: Checkpoint) -> Metadata:
    """How the network wants its pixels, completed by what the checkpoint says of it."""
    manifest = checkpoint.manifest
    found = Metadata.from_dict(manifest.preprocessing)
    size = manifest.network.size
    if found.input_size not in ((0, 0), (size, size)):
        raise CheckpointError(
            f"{checkpoint.path / MANIFEST}: preprocessing: input_size is "
            f"{list(found.input_size)}; the network's is [{size}, {size}]"
        )
    return replace(
        found, input_size=(size, size), model_name=found.model_name or manifest.network.name
    )
