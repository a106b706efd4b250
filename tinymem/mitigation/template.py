"""`tinymem new-method`: a method file that works, and its test, for a user to make their own."""

from __future__ import annotations

import re
from importlib.resources import files
from keyword import iskeyword
from pathlib import Path

from tinymem.errors import UserError
from tinymem.mitigation.method import UNLEARNERS
from tinymem.runtime.files import write_text


def write_template(name: str, directory: Path) -> list[Path]:
    """Write `<name>.py` and `test_<name>.py`; returns both paths.

    Raises:
        UserError: a name that cannot be registered, or files that exist.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"expected a name in lower case with dashes, such as my-method, got '{name}'")
    module = name.replace("-", "_")
    if iskeyword(module) or name in UNLEARNERS.names():
        raise UserError(f"expected a name that is not taken, got '{name}'; choose another")
    paths = {"new_method.py.tmpl": directory / f"{module}.py", "test_new_method.py.tmpl": directory / f"test_{module}.py"}
    for path in paths.values():
        if path.exists():
            raise UserError(f"expected no file at {path}, found one; choose another name or --dir")
    class_name = "".join(word.capitalize() for word in name.split("-"))
    for template, path in paths.items():
        text = (files("tinymem.mitigation") / "templates" / template).read_text(encoding="utf-8")
        for key, value in (("@NAME@", name), ("@MODULE@", module), ("@CLASS@", class_name)):
            text = text.replace(key, value)
        write_text(path, text)
    return list(paths.values())
