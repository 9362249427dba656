"""`pyedge evaluate`: accuracy on faces, FP32 and INT8 side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pyedge.cli.output import (
    IsaOption,
    JsonOption,
    ThreadsOption,
    console,
    print_json,
    progress,
    table,
)
from pyedge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pyedge.evaluation import EvaluationReport
    from pyedge.verification import Interval


def evaluate(
    crops: Annotated[
        Path,
        typer.Option(
            "--crops",
            metavar="DIR",
            help="Aligned faces, 112x112 by the ArcFace template, named Person_Name_0001.jpg.",
        ),
    ],
    fp32: Annotated[
        Path | None,
        typer.Option(metavar="FILE.pye", help="The model that the other is held against."),
    ] = None,
    int8: Annotated[
        Path | None, typer.Option(metavar="FILE.pye", help="The quantized model.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Pairs by the LFW protocol: columns fold, first, second, same (0 or 1).",
        ),
    ] = None,
    all_pairs: Annotated[
        bool,
        typer.Option(help="Also compare every two crops: true accepts at low false accept rates."),
    ] = True,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples.")] = 1000,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a report: .html, or .json."),
    ] = None,
    threads: ThreadsOption = 1,
    isa: IsaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge models on faces: accuracy over pairs, true accepts at low false accept rates.

    With both --fp32 and --int8 the table shows them side by side, and what the quantization
    costs with its 95 % bootstrap interval, each model at its own threshold.
    """
    import pyedge
    from pyedge.converters.arguments import check_paths
    from pyedge.evaluation import evaluate as evaluate_sessions
    from pyedge.evaluation import read_pairs
    from pyedge.evaluation_report import evaluation_html
    from pyedge.files import write_atomically

    files = {name: file for name, file in (("fp32", fp32), ("int8", int8)) if file is not None}
    if not files:
        raise InvalidArgumentError("no model: give --fp32, --int8 or both")
    if report is not None and report.suffix not in (".html", ".json"):
        raise InvalidArgumentError(f"{report}: a report is .html or .json")
    check_paths({**files, "--pairs": pairs}, {"--report": report})
    sessions = {
        name: pyedge.Session(str(file), threads=threads, isa=isa) for name, file in files.items()
    }
    listed = read_pairs(pairs) if pairs is not None else None
    with progress() as advance:
        result = evaluate_sessions(
            sessions,
            crops,
            listed,
            every_pair=all_pairs,
            resamples=resamples,
            progress=advance,
        )
    if report is not None:
        page = evaluation_html(result) if report.suffix == ".html" else result.to_json()
        write_atomically(report, page.encode())
    if as_json:
        print_json(result.to_dict())
    else:
        _render(console(), result)
        if report is not None:
            console().print(f"report: {report}")


def _percent(value: float | None) -> str:
    return "too few pairs" if value is None else f"{100 * value:.2f} %"


def _points(interval: Interval | None) -> str:
    if interval is None:
        return "too few pairs"
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * interval.difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def _render(out: Console, result: EvaluationReport) -> None:
    from pyedge.evaluation import far_name

    models, comparisons = result.models, result.comparisons
    rows = []
    if result.pairs:
        row = ["accuracy, LFW protocol", *(_percent(m.accuracy) for m in models.values())]
        rows.append(row + [_points(c.accuracy) for c in comparisons.values()])
    for far in next(iter(models.values())).tar:
        row = [f"TAR at FAR {far_name(far)}", *(_percent(m.tar[far]) for m in models.values())]
        rows.append(row + [_points(c.tar[far]) for c in comparisons.values()])
        thresholds = [m.thresholds[far] for m in models.values()]
        if None not in thresholds:
            shown = [f"{threshold:.4f}" for threshold in thresholds]
            rows.append(["  threshold", *shown, *[""] * len(comparisons)])
    changes = [f"{name} − {c.reference}, points [95 %]" for name, c in comparisons.items()]
    title = f"{result.images} images of {result.identities} people"
    out.print(table(title, ["", *models, *changes], rows))
    for name, comparison in comparisons.items():
        if comparison.cosine_mean is not None:
            out.print(
                f"cosine of {name} and {comparison.reference}: mean {comparison.cosine_mean:.4f}, "
                f"1st percentile {comparison.cosine_p1:.4f}, least {comparison.cosine_min:.4f}"
            )
    for note in result.notes:
        out.print(f"note: {note}")
