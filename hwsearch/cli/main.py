"""The `hwsearch` command: its sub-commands, and what happens to errors."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from hwsearch.cli import (
    demo,
    devices,
    doctor,
    export,
    fit,
    predict,
    profile,
    report,
    scenes,
    search,
)
from hwsearch.cli.supernet import app as supernet_app
from hwsearch.errors import HwsearchError, StoppedError

TRACEBACK_VARIABLE = "HWSEARCH_TRACEBACK"
RESUMED = (["profile"], ["search"], ["demo"], ["supernet", "train"])  # what a rerun goes on with


class Commands(TyperGroup):
    """The commands; an interruption is reported like any other expected end."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer's own class, not a public one
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError("Stopped.") from None


app = typer.Typer(
    name="hwsearch",
    cls=Commands,
    help="Find the Segment Anything model that fits a device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("devices")(devices.devices)
app.command("doctor")(doctor.doctor)
app.command("scenes")(scenes.scenes)
app.add_typer(supernet_app, name="supernet")
app.command("profile")(profile.profile)
app.command("fit")(fit.fit)
app.command("search")(search.search)
app.command("export")(export.export)
app.command("predict")(predict.predict)
app.command("report")(report.report)


def main() -> None:
    """Run the command line; an expected error is one sentence on stderr and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: typer.echo(
            f"hwsearch: warning: {message}", err=True
        )
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        app(args=arguments)
    except SystemExit as end:  # Typer ends so, after showing what was wrong with the arguments
        return end.code if isinstance(end.code, int) else 0
    except StoppedError as stopped:
        goes_on = arguments[:1] in RESUMED or arguments[:2] in RESUMED
        note = " The same command goes on where it was." if goes_on else ""
        return _fail(f"{stopped}{note}", stopped.exit_code)
    except HwsearchError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        return _fail(f"The system refused{place}: {error.strerror or error}.", 1)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        words = " ".join(str(error).split())[:300]
        return _fail(
            f"An error that was not foreseen, {type(error).__name__}: {words} "
            f"(set {TRACEBACK_VARIABLE}=1 to see where).",
            1,
        )
    return 0


def _fail(message: str, code: int) -> int:
    typer.echo(f"hwsearch: {message}", err=True)
    return code
