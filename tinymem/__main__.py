"""`python -m tinymem`: the command line without an installed script."""

from __future__ import annotations

from tinymem.cli.main import main

if __name__ == "__main__":
    main()
