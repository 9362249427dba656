"""The commands, and what becomes of their errors: one line and exit code 2."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pyedge.cli import (
    bench,
    convert,
    doctor,
    evaluate,
    inspect,
    pack,
    quickstart,
    run,
    shards,
    train,
)
from pyedge.cli.output import error_line
from pyedge.errors import PyEdgeError

# What the extras bring, as it is imported; google is protobuf.
_EXTRAS = {
    **dict.fromkeys(("onnx", "onnxsim", "google"), "convert"),
    **dict.fromkeys(("torch", "safetensors", "webdataset", "matplotlib"), "train"),
}


class _Group(TyperGroup):
    """Turns what a user can cause into a line on standard error and exit code 2."""

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        # Where a stream is closed, Python has None, which neither click nor rich expects.
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
        try:
            code = super().main(*args, standalone_mode=False, **options)  # type: ignore[misc]
            sys.stdout.flush()
        except OSError as error:
            _give_up_output()
            if error.errno == errno.EPIPE:
                raise SystemExit(1) from None
            error_line(f"the output cannot be written: {error.strerror}")
            code = 2
        except Exception as error:
            # Typer brings its own copy of click's exceptions or uses click's, by its version.
            if not hasattr(error, "format_message"):
                raise
            code = _usage_error(error)
        if not standalone_mode:
            return code
        raise SystemExit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PyEdgeError as error:
            error_line(str(error))
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").split(".")[0])
            if extra is None:
                raise
            error_line(f"{error.name} is not installed: pip install 'pyedge[{extra}]'")
        except MemoryError as error:
            error_line(f"out of memory: {error}" if str(error) else "out of memory")
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise  # whoever read the output has seen enough
        except OSError as error:
            if error.filename is None:
                raise  # from a stream; see main
            error_line(f"{error.filename}: {error.strerror}")
        raise typer.Exit(2)


def _usage_error(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        ctx = getattr(error, "ctx", None)
        hint = f" ({ctx.command_path} --help)" if ctx is not None else ""
        error_line(error.format_message() + hint)
    return int(error.exit_code)


def _give_up_output() -> None:
    """What is still buffered goes nowhere: the interpreter would fail on it again at its end."""
    with contextlib.suppress(OSError, ValueError):  # no real file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
app.command("train")(train.train)
app.add_typer(pack.app, name="pack")
app.add_typer(shards.app, name="shards")
