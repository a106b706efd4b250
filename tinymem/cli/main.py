"""The command line. Verbs only: what they need is imported inside them, so that `tinymem --help` is instant."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

# Threads that wait for work sleep instead of spinning: a tenth slower on an idle machine, twice as fast beside one other busy process.
# OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import typer

from tinymem.cli.bench import bench_app
from tinymem.cli.check import check
from tinymem.cli.data import app as data_app
from tinymem.cli.evaluate import Ks, Metrics, evaluate, load_plugins, metrics_app, numbers, words
from tinymem.cli.landscape import landscape
from tinymem.cli.new import new
from tinymem.cli.report import Format, compare, print_record, print_rows, report
from tinymem.cli.sweep import sweep
from tinymem.cli.train import train
from tinymem.errors import Stopped, UserError, complain
from tinymem.runtime.json import JsonObject
from tinymem.runtime.signals import hold_lifeline

app = typer.Typer(
    help="Train small language models that memorize, and make them forget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe; see recipes/.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, as in model.n_layer=4.")]
Runs = Annotated[Path, typer.Option(help="Folder that holds all runs.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Plugin = Annotated[list[Path] | None, typer.Option(help="A Python file that registers methods of your own.")]


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    plugin: Plugin = None,
) -> None:
    """Generate data, train, mitigate and report. Run again, it goes on from where it is."""
    from tinymem.recipe.recipe import load_recipe
    from tinymem.runs.pipeline import run as run_recipe
    from tinymem.runtime.progress import Progress

    load_plugins(plugin)
    made = run_recipe(load_recipe(recipe, overrides), runs=runs, device=device, progress=Progress(show=True))
    print_rows(made.path, "table")
    print(f"\n{made.path / 'report.html'}")
    _fail_if_failed(made.rows)


app.command()(train)
app.command()(sweep)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def mitigate(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder, such as runs/<run>/checkpoint.")],
    method: Annotated[str, typer.Option(help="A registered method; `tinymem methods` lists them.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the edited checkpoint.")] = None,
    forget: Annotated[Path | None, typer.Option(help="Rows to forget: .jsonl, .parquet or .npy. Default: the checkpoint's corpus.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Rows to keep, in the same formats; needed with --forget.")] = None,
    prompt: Annotated[int | None, typer.Option(min=1, help="Tokens given in the test of memorization.")] = None,
    match: Annotated[int | None, typer.Option(min=1, help="Tokens that must follow.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of the mitigation. Default: the recipe's, or 0.")] = None,
    metrics: Metrics = None,
    ks: Ks = None,
    robustness: Annotated[bool, typer.Option("--robustness", help="Test whether it comes back: relearning, rounding, prompts.")] = False,
    device: Device = "auto",
    plugin: Plugin = None,
    output: Format = "table",
) -> None:
    """Run one method on a checkpoint. Its options follow: `--method act --ratio 0.05`; see `tinymem methods show act`."""
    from tinymem.mitigation.method import parse_call
    from tinymem.runs.checkpoint import Measuring, mitigate_checkpoint

    load_plugins(plugin)
    rows = mitigate_checkpoint(
        checkpoint, parse_call(method, _method_options(context.args)), out=out, forget=forget, retain=retain,
        prompt=prompt, match=match, seed=seed, device=device, measuring=Measuring(words(metrics), numbers(ks, "--ks"), robustness),
    )  # fmt: skip
    from tinymem.results.run_folder import RunRecord

    print_record(RunRecord(checkpoint, recipe={}, rows=rows, curve=[]), output)
    if out:
        print(f"edited checkpoint: {out}", file=sys.stderr)


app.command()(evaluate)


app.command()(report)
app.command()(compare)
app.command()(landscape)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(metrics_app, name="metrics")
app.command()(check)

methods_app = typer.Typer(help="What methods there are.", invoke_without_command=True, pretty_exceptions_enable=False)
app.add_typer(methods_app, name="methods")


@methods_app.callback()
def methods(context: typer.Context, plugin: Plugin = None) -> None:
    """List the registered methods with their properties (the paper's Table 5)."""
    load_plugins(plugin)
    if context.invoked_subcommand is None:
        from tinymem.mitigation.method_pages import print_catalogue

        print_catalogue()


@methods_app.command("show")
def methods_show(name: Annotated[str, typer.Argument(help="A method's name.")]) -> None:
    """Idea, formula, source, cost, options with defaults, and the paper's grid of one method."""
    from tinymem.mitigation.method_pages import describe

    print(describe(name))


app.command()(new)


def _method_options(arguments: list[str]) -> JsonObject:
    """`--ratio 0.05 --scope=model` -> {"ratio": 0.05, "scope": "model"}."""
    import yaml

    options: JsonObject = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"expected a method option such as --ratio 0.05, got '{word}'")
        key, separator, value = word[2:].partition("=")
        if not separator:
            if not rest:
                raise UserError(f"expected a value after '{word}', got none")
            value = rest.pop(0)
        try:
            options[key.replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"expected a number or a word after '--{key}', got '{value}'") from None
    return options


def _fail_if_failed(rows: list[dict[str, Any]]) -> None:
    failed = sorted({row["method"] for row in rows if row["status"] == "failed"})
    if failed:
        raise typer.Exit(complain(f"failed: {', '.join(failed)}; the table says why; the same command tries them again", 1))


def main() -> None:
    """Entry point: exit code 0, 1 (a method or run failed), 2 (bad input, one line), 75 (stopped by a signal) or 130 (interrupted)."""
    hold_lifeline()
    warnings.showwarning = lambda message, *_args, **_kwargs: print(f"warning: {message}", file=sys.stderr)
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == 130:  # typer turns Ctrl-C into this
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        sys.exit(complain(str(error), 2))
    except Stopped as stop:
        sys.exit(complain(str(stop), 75))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(complain("interrupted; the same command goes on from here", 130))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        # Wrong options: click's own errors, which typer brings along under a name of its own in some releases.
        if not hasattr(error, "format_message"):
            raise
        said = error.format_message().rstrip(".") or "expected a command, got none"  # click has printed the group's help
        sys.exit(complain(f"{said}; see tinymem --help", 2))


if __name__ == "__main__":
    main()
