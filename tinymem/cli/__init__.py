"""The command line. Imported before its verbs, so that Ctrl-C while they are imported ends without a traceback."""

from __future__ import annotations

from tinymem.runtime.interrupts import end_imports_quietly

end_imports_quietly()
