"""The last stage of a run: its page, which must not cost the results."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from tinymem.errors import UserError, described
from tinymem.runtime.progress import Progress


def report_of_runs(folders: Sequence[Path], page: Path) -> Path | None:
    """Write one page about several runs, of those that have a folder; where that fails, say why and leave none."""
    from tinymem.report.page.document import write_page
    from tinymem.report.tables.catalogue import tables_of
    from tinymem.results.collect import load_results

    try:
        results = load_results([folder for folder in folders if folder.is_dir()])
        return write_page(results, tables_of(results), page)[0]
    except Exception as error:
        _warn(page, error)
    return None


def report_stage(run: Path, progress: Progress) -> None:
    """Write a run's page; where that fails, say why and leave none."""
    from tinymem.report.page.document import write_html
    from tinymem.results.run_folder import load_run

    page = run / "report.html"
    progress.say("writing report.html")
    try:
        write_html(load_run(run), page)
    except Exception as error:
        _warn(page, error)


def _warn(page: Path, error: Exception) -> None:
    page.unlink(missing_ok=True)
    reason = str(error) if isinstance(error, UserError) else described(error)
    warnings.warn(f"no {page}: {reason}; the results are stored, and tinymem report --format html tries again", stacklevel=4)
