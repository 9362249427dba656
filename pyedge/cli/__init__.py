"""The command line: `pyedge --help`."""

from __future__ import annotations


def main() -> None:
    """Runs the command line; returns through SystemExit."""
    from pyedge.cli.app import app

    app(prog_name="pyedge")
