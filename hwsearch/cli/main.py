"""The `hwsearch` command: its sub-commands, and what happens to errors."""

from __future__ import annotations

import sys

import click
import typer

from hwsearch.cli import demo, devices, export, fit, predict, profile, report, scenes, search
from hwsearch.cli.supernet import app as supernet_app
from hwsearch.errors import HwsearchError

app = typer.Typer(
    name="hwsearch",
    help="Find the Segment Anything model that fits a device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("devices")(devices.devices)
app.command("scenes")(scenes.scenes)
app.add_typer(supernet_app, name="supernet")
app.command("profile")(profile.profile)
app.command("fit")(fit.fit)
app.command("search")(search.search)
app.command("export")(export.export)
app.command("predict")(predict.predict)
app.command("report")(report.report)

INTERRUPTED = 130


def main() -> None:
    """Run the command line; an expected error is one sentence on stderr and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    try:
        result = app(args=arguments, standalone_mode=False)
    except HwsearchError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail("Stopped; the same command goes on where it was.", INTERRUPTED)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        return _fail(f"The system refused{place}: {error.strerror or error}.", 1)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    click.echo(f"hwsearch: {message}", err=True)
    return code
