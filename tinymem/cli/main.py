"""The command line: its verbs, and the exit codes of errors. Imports are inside the verbs, so that `tinymem --help` is instant."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from functools import cache
from typing import Annotated, Any

import typer

from tinymem import __version__
from tinymem.cli.bench import bench_app
from tinymem.cli.cache import cache_app
from tinymem.cli.check import check
from tinymem.cli.curvature import curvature
from tinymem.cli.data import app as data_app
from tinymem.cli.evaluate import evaluate, metrics_app
from tinymem.cli.init import init
from tinymem.cli.landscape import landscape
from tinymem.cli.localize import localize_app
from tinymem.cli.localize_classes import classes
from tinymem.cli.localize_layers import layers
from tinymem.cli.methods import methods_app
from tinymem.cli.mitigate import mitigate
from tinymem.cli.new import new
from tinymem.cli.push import push
from tinymem.cli.recipe import recipe_app
from tinymem.cli.report import compare, report
from tinymem.cli.reproduce import reproduce
from tinymem.cli.run import run
from tinymem.cli.runs import runs
from tinymem.cli.show import show
from tinymem.cli.sweep import sweep
from tinymem.cli.train import train
from tinymem.cli.zoo import zoo_app
from tinymem.errors import Stopped, UserError, complain, described, one_line
from tinymem.hub.pins import pinned_names
from tinymem.runtime.interrupts import INTERRUPTED, INTERRUPTED_CODE
from tinymem.runtime.signals import hold_lifeline
from tinymem.runtime.streams import check_names, echo, restart_in_utf8, spell_what_streams_lack

HELP_NAMES = ["-h", "--help"]

app = typer.Typer(
    help="Train small language models that memorize, and make them forget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_NAMES},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"tinymem {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    context.with_resource(pinned_names())


app.command()(init)
app.command()(run)
app.command()(train)
app.command()(sweep)
app.command()(runs)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(mitigate)
app.command()(evaluate)
app.command()(show)
app.command()(report)
app.command()(compare)
app.command()(reproduce)
app.command()(landscape)
app.command()(curvature)
localize_app.command("layers")(layers)
localize_app.command("classes")(classes)
app.add_typer(localize_app, name="localize")
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(metrics_app, name="metrics")
app.add_typer(recipe_app, name="recipe")
app.add_typer(cache_app, name="cache")
app.command()(check)
app.add_typer(methods_app, name="methods")
app.command()(new)
app.add_typer(zoo_app, name="zoo")
app.command()(push)


def main() -> None:
    """Entry point: exit code 0, 1 (a method or run failed), 2 (bad input, one line), 75 (stopped by a signal) or 130 (interrupted).

    141 is what shells say of tools whose reader has gone, as under `| head -1`.
    """
    try:
        restart_in_utf8()
        hold_lifeline()
        spell_what_streams_lack()
        check_names(sys.argv[1:])
        warnings.showwarning = lambda message, *_args, **_kwargs: echo(f"warning: {one_line(str(message))}", err=True)
        code = _command().main(sys.argv[1:] or ["--help"], "tinymem", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED_CODE:  # typer turns Ctrl-C into this
            raise KeyboardInterrupt
    except UserError as error:
        sys.exit(complain(str(error), 2))
    except Stopped as stop:
        sys.exit(complain(str(stop), stop.code))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(complain(INTERRUPTED, INTERRUPTED_CODE))
    except BrokenPipeError:
        sys.exit(_reader_gone())
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # click has seen it first
            sys.exit(_reader_gone())
        if _place_in_plugin(stop) is None:
            raise
        sys.exit(complain(f"expected plugins to return or to raise an error, got {described(stop)}; take the sys.exit() out", 2))
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            sys.exit(complain("the memory is used up; use a larger machine, a smaller model or smaller batches", 1))
        # Wrong options: click's own errors, which typer brings along under a name of its own in some releases.
        if not hasattr(error, "format_message"):
            if (place := _place_in_plugin(error)) is None:
                raise
            sys.exit(complain(f"a plugin failed ({place}): {''.join(traceback.format_exception_only(error))}", 2))
        message = error.format_message().rstrip(".") or "expected a command, got none"  # click has printed the group's help
        verb = getattr(getattr(error, "ctx", None), "command_path", None) or "tinymem"
        sys.exit(complain(f"{message.replace(': Value error, ', ': ')}; see {verb} --help", 2))
    sys.exit(code)


@cache
def _command() -> Any:  # typer's own kind of click's command
    """All verbs with their options, built once a process: it takes longer than most refusals."""
    command = typer.main.get_command(app)
    _hide_types_of_switches(command)
    return command


def _hide_types_of_switches(command: Any) -> None:
    """Show no `<bool>` behind switches in help: recent releases of typer do."""
    own = command.get_help_option(command.context_class(command, help_option_names=HELP_NAMES))
    for option in (*command.params, own):
        if getattr(option, "is_flag", False) and option.metavar is None:
            option.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _hide_types_of_switches(inner)


def _place_in_plugin(error: BaseException) -> str | None:
    from tinymem.registry import place_in_plugin

    return place_in_plugin(error)


def _reader_gone() -> int:
    """Let what is still to be written vanish; returns the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    return 128 + signal.SIGPIPE


if __name__ == "__main__":
    main()
