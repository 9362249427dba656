"""`pyedge run`: images or arrays through a model."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from pyedge.cli.output import (
    AffinityOption,
    CacheOption,
    IsaOption,
    JsonOption,
    ModelArgument,
    ThreadsOption,
    console,
    print_json,
    progress,
    table,
)
from pyedge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pyedge.metadata import Metadata

_SHOWN = 6  # values of an array that are printed


def run(
    model: ModelArgument,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Images, or .npy files: float32 in the layout of the model's input.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the result here: .npy with a row for each image, or .npz with an array "
            "for each output, by name.",
        ),
    ] = None,
    threads: ThreadsOption = 1,
    isa: IsaOption = None,
    affinity: AffinityOption = "all",
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a model on images or arrays.

    Images through an embedder give features, compared with each other; all else gives the raw
    outputs. A picture of 112x112 is taken for a face in ArcFace's alignment. Another is resized
    to the model's input: faces that are not aligned have features that mean little.
    """
    import pyedge
    from pyedge.converters.arguments import check_paths

    session = pyedge.Session(str(model), threads, isa, affinity=affinity, cache=cache)
    names = [info.name for info in session.outputs]
    if out is not None and len(names) > 1 and out.suffix != ".npz":
        raise InvalidArgumentError(
            f"{out}: the model has {len(names)} outputs ({', '.join(names)}); write them as .npz"
        )
    reads = {"the model": model, **{f"the input {path}": path for path in inputs}}
    check_paths(reads, {"--out": out})
    arrays = [path for path in inputs if path.suffix == ".npy"]
    if arrays and len(arrays) != len(inputs):
        raise InvalidArgumentError("images and .npy files together; give one kind")
    if arrays:
        values = session.run([_read_array(path) for path in arrays])
    else:
        crops = _read_crops(session.metadata, inputs)
        if session.metadata.embedding_size:
            values = [session.embed(crops)]
        else:
            values = session.run(session.metadata.apply(crops))
    result: dict[str, Any]
    if arrays or not session.metadata.embedding_size:
        result = {
            "outputs": [
                {"name": info.name, "shape": list(value.shape), "values": value}
                for info, value in zip(session.outputs, values, strict=True)
            ]
        }
    else:
        result = {
            "images": [str(path) for path in inputs],
            "embeddings": values[0],
            "cosines": values[0] @ values[0].T,
        }
    if out is not None:
        _write_arrays(out, dict(zip(names, values, strict=True)))
        result["written"] = str(out)
    if as_json:
        print_json(result)
    else:
        _render(console(), result)


def _read_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        raise InvalidArgumentError(f"{path}: not a .npy file: {error}") from error
    except MemoryError as error:
        raise InvalidArgumentError(f"{path}: claims more values than fit in memory") from error
    if not isinstance(array, np.ndarray):
        raise InvalidArgumentError(f"{path}: several arrays in one file; expected one")
    return array


def _read_crops(metadata: Metadata, paths: list[Path]) -> np.ndarray:
    """The images at the size of the model's input: uint8 RGB [N, H, W, 3]."""
    from pyedge.images import load_image

    if metadata.color == "none":
        raise InvalidArgumentError(
            "this model does not say how it takes images (colour order, mean, scale): "
            "give .npy arrays, or convert it again with preprocessing"
        )
    crops = []
    with progress() as advance:
        for count, path in enumerate(paths, 1):
            crops.append(_fitted(load_image(path), metadata))
            advance("reading", count, len(paths))
    if len({crop.shape for crop in crops}) > 1:
        raise InvalidArgumentError("images of several sizes, and the model takes any: give one")
    return np.stack(crops)


def _fitted(image: np.ndarray, metadata: Metadata) -> np.ndarray:
    from PIL import Image

    from pyedge.align import crops_for_model
    from pyedge.metadata import ARCFACE_SIZE

    width, height = metadata.input_size
    if not width or image.shape[1::-1] == (width, height):
        return image
    if metadata.embedding_size and image.shape[1::-1] == ARCFACE_SIZE:
        return crops_for_model(image[None], metadata)[0]
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))


def _write_arrays(path: Path, values: dict[str, np.ndarray]) -> None:
    """One array as .npy; .npz has each under the name of its output."""
    from pyedge.files import write_atomically

    buffer = io.BytesIO()
    if path.suffix == ".npz":
        with zipfile.ZipFile(buffer, "w") as archive:  # savez cannot name an array "file"
            for name, value in values.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, value, allow_pickle=False)
    else:
        np.save(buffer, next(iter(values.values())))
    write_atomically(path, buffer.getvalue())


def _render(out: Console, result: dict[str, Any]) -> None:
    if "embeddings" in result:
        names = [Path(path).name for path in result["images"]]
        embeddings = result["embeddings"]
        rows = [
            [str(i), name, " ".join(f"{v:+.3f}" for v in row[:_SHOWN]) + " …"]
            for i, (name, row) in enumerate(zip(names, embeddings, strict=True), 1)
        ]
        title = f"Embeddings, {embeddings.shape[1]} values each"
        out.print(table(title, ["", "image", "first values"], rows, left=3))
        if len(names) > 1:
            cosines = [
                [str(i), *(f"{c:.3f}" for c in row)] for i, row in enumerate(result["cosines"], 1)
            ]
            columns = ["", *(str(i) for i in range(1, len(names) + 1))]
            out.print(table("Cosine similarity", columns, cosines))
    else:
        rows = []
        for output in result["outputs"]:
            values = output["values"].ravel()
            shown = " ".join(f"{v:.4g}" for v in values[:_SHOWN])
            more = " …" if values.size > _SHOWN else ""
            rows.append([output["name"], str(output["shape"]), shown + more])
        out.print(table("Outputs", ["name", "shape", "first values"], rows, left=3))
    if "written" in result:
        out.print(f"written: {result['written']}")
