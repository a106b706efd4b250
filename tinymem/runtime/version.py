"""The version of this package, with the commit of the checkout that it runs from."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from tinymem import __version__


@cache
def version_and_commit() -> str:
    """`0.1.0, commit 8a17df6`, with a word where files were changed since; the version alone of an installed package."""
    root = Path(__file__).resolve().parents[2]
    if _git(root, "rev-parse", "--show-toplevel") != str(root):  # not ours: a repository that holds the environment, for instance
        return __version__
    changed = " with changes" if _git(root, "status", "--porcelain", "--untracked-files=no", "--", "tinymem") else ""
    return f"{__version__}, commit {_git(root, 'rev-parse', '--short', 'HEAD')}{changed}"


def _git(root: Path, *words: str) -> str:
    """What git prints; empty where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
