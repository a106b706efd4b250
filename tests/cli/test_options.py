"""Options of more than one verb are defined once, with one help text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.models import OptionInfo

from tinymem.cli import options
from tinymem.cli.main import app
from tinymem.errors import UserError

OWN = {"--rows", "--steps"}  # they count something else in each verb
SHARED = [value for value in vars(options).values() if get_origin(value) is Annotated]


def verbs(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    """The functions behind all verbs, those of sub-groups too."""
    yield from (command.callback for command in group.registered_commands if command.callback)
    for below in group.registered_groups:
        if below.typer_instance.registered_callback:
            assert below.typer_instance.registered_callback.callback
            yield below.typer_instance.registered_callback.callback
        yield from verbs(below.typer_instance)


def flags() -> dict[str, dict[str, Any]]:
    """Every flag with the verbs that have it, and how each defines it."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for verb in verbs(app):
        for name, hint in get_type_hints(verb, include_extras=True).items():
            for info in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
                if isinstance(info, OptionInfo):
                    declared = [word for word in (info.default, *(info.param_decls or ())) if str(word).startswith("--")]
                    found[declared[0] if declared else f"--{name.replace('_', '-')}"][f"{verb.__module__}.{verb.__name__}"] = hint
    return found


@pytest.mark.parametrize("flag", sorted(flag for flag, by in flags().items() if len(by) > 1 and flag not in OWN))
def test_a_shared_option_is_defined_once(flag: str) -> None:
    found = flags()[flag]
    assert len({get_args(hint)[1].help for hint in found.values()}) == 1, "one flag, one help"
    assert [verb for verb, hint in found.items() if hint not in SHARED] == [], "define it in cli/options.py"


def test_the_scan_sees_options() -> None:
    found = flags()
    assert {"--device", "--set", "--plugin", "--out", "--format", "--metrics"} <= {flag for flag, by in found.items() if len(by) > 1}
    assert {"tinymem.cli.run.run", "tinymem.cli.bench.train", "tinymem.cli.landscape.landscape"} <= set(found["--device"])
    assert all(len(found[flag]) > 1 for flag in OWN)
    used = [hint for by in found.values() for hint in by.values()]
    assert all(value in used or not isinstance(get_args(value)[1], OptionInfo) for value in SHARED), "an option that no verb has"


def test_lists_of_values() -> None:
    assert options.words(" loss, zlib,") == ("loss", "zlib") and options.words(None) is None
    assert options.numbers("10,20", "--ks") == (10, 20) and options.numbers(None, "--ks") is None
    with pytest.raises(UserError, match="expected --ks to be numbers"):
        options.numbers("10,x", "--ks")
