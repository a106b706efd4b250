"""An option means the same in every verb that has it: one definition, type, sentence of help and word for its value."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from command_tree import COMMANDS
from typer.models import OptionInfo

from tinymem.cli import options
from tinymem.cli.main import app
from tinymem.errors import UserError

FORMATS = ["table", "json", "csv", "markdown", "latex", "html"]
# These print no table: pages and paths, a file's or a checkpoint's own text, or lines that say what was checked or done.
WITHOUT_FORMAT = {
    "data find-memorized",
    *("init", "recipe schema", "data tokenizer", "cache clear"),
    *("data make", "data verify", "landscape", "new", "reproduce", "zoo add", "zoo card", "zoo verify"),
    *("", "zoo leaderboard", "push", "zoo push", "zoo pull"),
}
# Nothing of a plugin's occurs in these; that of the leaderboard comes with --submit.
WITHOUT_PLUGIN = {
    *("init", "data tokenizer", "cache", "cache clear"),
    *("new", "reproduce", "runs", "zoo list", "zoo verify", "zoo card", "zoo add", "zoo leaderboard", "zoo push", "zoo pull", ""),
}
# `show` continues a --prompt of text instead of so many tokens, applies any number of methods, and counts rows of each artifact; the
# rows of a landscape are a file, or named.
OWN = {*((flag, "show") for flag in ("--prompt", "--method", "--rows")), ("--rows", "landscape")}
SHARED = [value for value in vars(options).values() if get_origin(value) is Annotated]


def own(flag: str) -> set[str]:
    """The verbs in which a flag means something of their own."""
    return {verb for name, verb in OWN if name == flag}


def flags() -> dict[str, dict[str, Any]]:
    """Every flag with the verbs that have it, and how each defines it."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                found[next(word for word in parameter.opts if word.startswith("--"))][name] = parameter
    return found


def kind_of(parameter: Any) -> tuple[Any, ...]:
    """What values an option takes."""
    kind = parameter.type_descriptor.annotation
    return get_args(kind)[0] if get_origin(kind) is list else kind, parameter.min, parameter.max


@pytest.mark.parametrize("flag", sorted(flag for flag, by in flags().items() if len(by) > 1))
def test_a_shared_option_is_defined_once(flag: str) -> None:
    found = {name: parameter for name, parameter in flags()[flag].items() if (flag, name) not in OWN}
    assert len({parameter.help for parameter in found.values()}) == 1, "one flag, one help"
    assert len({parameter.metavar for parameter in found.values()}) == 1, "one flag, one word for its value"
    kinds = {name: kind_of(parameter) for name, parameter in found.items() if (flag, name) != ("--format", "report")}
    assert len({str(kind) for kind in kinds.values()}) == 1, kinds


def test_values_are_named_in_words() -> None:
    unnamed = [
        f"{name} {parameter.opts[-1]}"
        for name, command in COMMANDS.items()
        for parameter in command.params
        if not (parameter.metavar or getattr(parameter, "is_flag", False) or get_origin(parameter.type_descriptor.annotation) is Literal)
    ]
    assert unnamed == [], "metavar=... says what to give"


@pytest.mark.parametrize("name", sorted({*COMMANDS} - WITHOUT_FORMAT))
def test_whatever_prints_takes_a_format(name: str) -> None:
    own = {parameter.opts[-1]: parameter for parameter in COMMANDS[name].params}
    further = ["png", "svg"] if name == "report" else []
    assert [*get_args(own["--format"].type_descriptor.annotation)] == FORMATS + further
    assert own["--json"].is_flag, "--json is the short form"


def test_whatever_may_meet_a_plugins_thing_takes_plugins() -> None:
    assert {name for name in COMMANDS if "--plugin" not in {p.opts[-1] for p in COMMANDS[name].params}} == WITHOUT_PLUGIN


def test_shared_options_come_from_one_file() -> None:
    """The definitions of `cli/options.py`, by identity, and no other with the same flag."""
    used, foreign = [], []
    for info in app.registered_commands:
        for name, hint in get_type_hints(info.callback, include_extras=True).items():
            if get_origin(hint) is Annotated and isinstance(get_args(hint)[1], OptionInfo):
                used.append(hint)
                flag = next((w for w in (get_args(hint)[1].param_decls or ()) if w.startswith("--")), f"--{name.replace('_', '-')}")
                foreign += [flag] if len({*flags()[flag]} - own(flag)) > 1 and hint not in SHARED else []
    assert used and foreign == []


def test_formats_that_exclude_each_other() -> None:
    from tinymem.cli.printing import chosen

    assert chosen("table", True) == chosen("json", True) == "json" and chosen("csv", False) == "csv"
    with pytest.raises(UserError, match="expected one format, got --format csv and --json"):
        chosen("csv", True)


def test_lists_of_values() -> None:
    assert options.words(" loss, zlib,") == ("loss", "zlib") and options.words(None) is None
    assert options.numbers("10,20", "--ks") == (10, 20) and options.numbers(None, "--ks") is None
    with pytest.raises(UserError, match="expected --ks to be numbers"):
        options.numbers("10,x", "--ks")
