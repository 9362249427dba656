"""The commands, and what becomes of their errors: one line and exit code 2."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pyedge.cli import (
    bench,
    convert,
    doctor,
    evaluate,
    inspect,
    quickstart,
    run,
)
from pyedge.cli.output import error_line
from pyedge.errors import PyEdgeError

_CONVERT_MODULES = ("onnx", "onnxsim", "google")  # of the extra `convert`


class _Group(TyperGroup):
    """Turns what a user can cause into a line on standard error and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PyEdgeError as error:
            error_line(str(error))
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in _CONVERT_MODULES:
                raise
            error_line(f"{error.name} is not installed: pip install 'pyedge[convert]'")
        except MemoryError as error:
            error_line(f"out of memory: {error}" if str(error) else "out of memory")
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise  # whoever read the output has seen enough
        except OSError as error:
            if error.filename is None:
                raise
            error_line(f"{error.filename}: {error.strerror}")
        raise typer.Exit(2)


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import pyedge

        typer.echo(f"pyedge {pyedge.__version__}")
        raise typer.Exit()


@app.callback(epilog="Start with `pyedge quickstart`; when something is odd, `pyedge doctor`.")
def _pyedge(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Face recognition networks to INT8 at the edge: convert, run, measure, prove."""


app.command("quickstart")(quickstart.quickstart)
app.command("convert")(convert.convert)
app.command("inspect")(inspect.inspect)
app.command("run")(run.run)
app.command("bench")(bench.bench)
app.command("evaluate")(evaluate.evaluate)
app.command("doctor")(doctor.doctor)
