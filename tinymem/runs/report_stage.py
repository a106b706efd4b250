"""The last stage of a run: its page, which must not cost the results."""

from __future__ import annotations

import warnings
from pathlib import Path

from tinymem.errors import UserError, described
from tinymem.runtime.progress import Progress


def report_stage(run: Path, progress: Progress) -> None:
    """Write a run's page; where that fails, say why and leave none."""
    from tinymem.report.page.document import write_html
    from tinymem.results.run_folder import load_run

    page = run / "report.html"
    progress.say("writing report.html")
    try:
        write_html(load_run(run), page)
    except Exception as error:
        page.unlink(missing_ok=True)
        reason = str(error) if isinstance(error, UserError) else described(error)
        warnings.warn(f"no {page}: {reason}; the results are stored, and tinymem report --format html tries again", stacklevel=3)
