"""Arguments and options of more than one verb, each with one help text, and the reading of those that hold several values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinymem.errors import UserError, no_checkpoint, run_for_checkpoint

if TYPE_CHECKING:
    from tinymem.data.token_arrays import RawLayout

OUT_HELP = "Where to write; the description says what, and whether to a file or a folder."
FORMAT_HELP = "How to print it. html is a page, which `run` and `report` write to a file; png and svg, of `report` alone, are the figures."
WAY_HELP = "A way of training: reference, compiled, graph, autograd, ours, kernels, ours+goldfish, ..."


def _known_device(device: str) -> str:
    from tinymem.runtime.device import check_device_name

    check_device_name(device)
    return device


def outside_files(parameter: typer.CallbackParam, place: Path | None) -> Path | None:
    """Check of a place to write: it is not inside of a file."""
    file = next((folder for folder in place.parents if folder.is_file()), None) if place else None
    if file is not None:
        raise UserError(f"expected a place to write for {parameter.opts[0]}, got {place}, where {file} is a file; name another")
    return place


def a_folder(parameter: typer.CallbackParam, folder: Path | None) -> Path | None:
    """Check of a folder, or of a place for one: it is no file, nor inside of one."""
    file = next((place for place in (folder, *folder.parents) if place.is_file()), None) if folder else None
    if file is not None:
        raise UserError(f"expected a folder for {parameter.opts[0]}, got {folder}, where {file} is a file; name another")
    return folder


def a_file(parameter: typer.CallbackParam, file: Path | None) -> Path | None:
    """Check of a file to read: it is there."""
    if file is not None and not file.is_file():
        raise UserError(f"expected a file for {parameter.opts[0]}, found none at {file}; check the path")
    return file


def a_size(given: str | None) -> str | None:
    """Check of a size in words, whether something is fetched or not."""
    size_in_bytes(given)
    return given


def size_in_bytes(given: str | None) -> int | None:
    """Bytes of a size in words; None where none was given."""
    from tinymem.hub.names import parse_size

    return None if given is None else parse_size(given)


RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe; see recipes/.")]
LocalizationFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="Its options as YAML; `tinymem recipe schema` says which there are."),
]
Techniques = Annotated[str | None, typer.Option("--techniques", metavar="NAMES", help="Techniques, with commas between. Default: all.")]
Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder, such as runs/<run>/checkpoint, or ORG/NAME[@REVISION] of the Hub."),
]
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="REVISION", help="Branch, tag or commit of a model on the Hub. Default: main.")
]
MaxSize = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        metavar="SIZE",
        callback=a_size,
        help="Take at most so much from the Hub, as in 500MB. Default: what the memory of this machine or its GPU holds.",
    ),
]
Private = Annotated[bool, typer.Option("--private", help="Make private repositories.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite branches on the Hub that hold another model or corpus.")]
Remeasure = Annotated[bool, typer.Option("--remeasure", help="Measure the numbers of the card anew, instead of taking the stored ones.")]
License = Annotated[
    str | None, typer.Option("--license", metavar="NAME", help="As the Hub abbreviates it, as in mit. Default: that of the data.")
]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, as in model.n_layer=4; of a matrix, fix an axis. Repeatable."),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Load weights that differ from their checksum, because you changed them.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A Python file that registers methods, metrics, artifacts, ... of your own. Repeatable.",
    ),
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", callback=a_folder, help="Folder that holds all runs.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        callback=_known_device,
        help="auto, cpu, cuda or cuda:N; many runs use every visible GPU with auto and cuda.",
    ),
]
Gpus = Annotated[
    int, typer.Option("--gpus", min=1, metavar="NUMBER", help="Spread a model of the Hub over so many GPUs of this machine (accelerate).")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Only runs of this name (train, run), or METHOD or COLUMN=GLOB (sweep). Repeatable."),
]
Shard = Annotated[str | None, typer.Option("--shard", metavar="I/N", help="The I-th of N parts of the work, as in 3/16.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and what it takes (time and disk, or bytes and calls); do nothing.")
]
ListOnly = Annotated[bool, typer.Option("--list", help="Say what would be run, and run nothing.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        metavar="NUMBER",
        help="Processes at a time: on each GPU, or on the CPU. Default: 1 on a GPU and where models are trained, else one a core.",
    ),
]
DType = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option("--dtype", help="Type of the weights in memory. auto: fp32 for TinyMem's GPT-2, for other families that of their files."),
]
Raw = Annotated[str | None, typer.Option("--raw", metavar="TYPExWIDTH", help="How .bin files hold token ids, as in uint16x2049.")]
ForgetRowsChoice = Annotated[
    Literal["all", "memorized"],
    typer.Option("--forget-rows", help="Give the method all rows of --forget but the holdout, or only those that are memorized."),
]

Mps = Annotated[bool, typer.Option("--mps", help="Let the processes of a GPU run side by side, through NVIDIA's MPS.")]

Prompt = Annotated[int | None, typer.Option("--prompt", min=1, metavar="TOKENS", help="Tokens given in the test of memorization.")]
Match = Annotated[int | None, typer.Option("--match", min=1, metavar="TOKENS", help="Tokens that must follow.")]
Forget = Annotated[
    Path | None,
    typer.Option(
        "--forget", metavar="FILE", help="Rows to forget: .jsonl, .csv, .parquet, .npy, .pt, .bin. Default: the checkpoint's corpus."
    ),
]
Retain = Annotated[Path | None, typer.Option("--retain", metavar="FILE", help="Rows to keep, in the same formats; mitigate needs both.")]
CorpusPath = Annotated[
    Path | None,
    typer.Option("--corpus", metavar="PLACE", help="The checkpoint's corpus, or the text that it was made of; its hash is checked."),
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column", metavar="NAME", help="Column of ids or text in the rows' files. Default: the first that is known and not empty."
    ),
]
Bos = Annotated[bool, typer.Option("--bos", help="Put the model's first token before each text of the rows' files.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse rows that are too short, instead of leaving them out with a warning.")]
ProtocolName = Annotated[
    Literal["paper", "reference"] | None, typer.Option("--protocol", help="How to count. Default: the recipe's, or paper.")
]
Methods = Annotated[
    str | None, typer.Option("--methods", metavar="NAMES", help="Methods, with commas between. Default: those that the description names.")
]
Metrics = Annotated[
    str | None,
    typer.Option("--metrics", metavar="NAMES", help="Names with commas between, default or all; `tinymem metrics` lists them."),
]
Ks = Annotated[str | None, typer.Option("--ks", metavar="NUMBERS", help="Further prompt lengths of (n, k) memorization, as in 10,20,30.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=2**32 - 1, metavar="NUMBER", help="Seed of what is drawn. Default: the recipe's, or 0."),
]

Zoo = Annotated[Path | None, typer.Option("--zoo", metavar="DIR", help="Folder of the checkpoints. Default: zoo/ of the repository.")]

Stored = Annotated[Path | None, typer.Option("--stored", metavar="FILE", help="Where the rows are stored; default: in docs/.")]
Sweeps = Annotated[Path, typer.Option("--sweeps", metavar="DIR", callback=a_folder, help="Folder of the sweeps that are run.")]
AddFolders = Annotated[
    list[Path] | None,
    typer.Option("--add", metavar="DIR", help="First add the rows of these, in place of those of the same runs. Repeatable."),
]
FROM_HELP = "First store the rows of these: for the leaderboard beside those stored, for a reproduced table in place of all. Repeatable."
FromFolders = Annotated[list[Path] | None, typer.Option("--from", metavar="DIR", help=FROM_HELP)]

ShownRows = Annotated[
    int | None, typer.Option("--rows", min=1, metavar="NUMBER", help="Rows of each artifact. Default: 3, as many as a run keeps.")
]
ShownPrompt = Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="A text to continue, instead of memorized rows.")]
ShownMethods = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="NAME", help="Apply a method now, with the options of the run's rows or its defaults. Repeatable."),
]

Out = Annotated[Path | None, typer.Option("--out", metavar="PLACE", callback=outside_files, help=OUT_HELP)]
NeededOut = Annotated[Path, typer.Option("--out", metavar="PLACE", callback=outside_files, help=OUT_HELP)]
Way = Annotated[str, typer.Option("--way", metavar="WAY", help=WAY_HELP)]
Ways = Annotated[list[str] | None, typer.Option("--way", metavar="WAY", help=WAY_HELP)]
PrintJson = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Format = Annotated[Literal["table", "json", "csv", "markdown", "latex", "html"], typer.Option("--format", help=FORMAT_HELP)]
ReportFormat = Annotated[
    Literal["table", "json", "csv", "markdown", "latex", "html", "png", "svg"], typer.Option("--format", help=FORMAT_HELP)
]


def words(text: str | None) -> tuple[str, ...] | None:
    """Split a list of words: `loss, zlib` -> ("loss", "zlib")."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Split a list of numbers: `10,20` -> (10, 20).

    Raises:
        UserError: something else than numbers.
    """
    found = words(text)
    if found is not None and not all(word.isdecimal() for word in found):
        raise UserError(f"expected {option} to be numbers with commas between, as in 10,20, got '{text}'")
    return None if found is None else tuple(map(int, found))


def raw_layout(text: str | None) -> RawLayout | None:
    """The layout of raw files of ids; raises as `RawLayout.parse`."""
    from tinymem.data.token_arrays import RawLayout

    return None if text is None else RawLayout.parse(text)


def named_revision(given: Path, revision: str | None) -> str | None:
    """The revision of a model on the Hub that was asked for, with --revision or behind @; None where none was."""
    from tinymem.hub.names import asked_revision

    return asked_revision(str(given), revision)


def local_checkpoint(given: Path, revision: str | None = None, max_size: str | None = None, *, or_run: bool = False) -> Path:
    """The folder of a checkpoint, or a run's too; a model on the Hub is fetched into the client's cache and verified.

    Raises:
        UserError: it is something else, cannot be fetched, or is not safe.
    """
    from tinymem.hub.names import is_hub_name

    if revision is None and not given.exists() and not is_hub_name(str(given)):
        raise no_checkpoint(given)
    if not or_run and not (given / "config.json").is_file() and (given / "checkpoint" / "config.json").is_file():
        raise run_for_checkpoint(given)
    from tinymem.hub.fetch import checkpoint_folder  # reads torch

    return checkpoint_folder(given, revision=revision, max_size=size_in_bytes(max_size))


def load_plugins(paths: list[Path] | None) -> None:
    """Run users' files, so that they register what they have."""
    from tinymem.registry import load_plugin

    for path in paths or []:
        load_plugin(path)
