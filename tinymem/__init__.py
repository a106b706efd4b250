"""TinyMem: train small language models that memorize, and make them forget."""

from __future__ import annotations

import os
import sys
import warnings

TYPE_CHECKING = False  # as typing's, which takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"


def _wait_passively() -> None:
    """Let threads that wait for work sleep instead of spinning: a tenth slower on an idle machine, many times as fast on a busy one.

    OpenMP reads the variable once, when torch is imported.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"  # for processes that this one starts, too
    if "torch" in sys.modules:
        warnings.warn(
            "torch was imported before tinymem, so its threads spin while they wait, which is many times slower on a busy machine; "
            "import tinymem first, or set OMP_WAIT_POLICY=passive",
            stacklevel=3,
        )


_wait_passively()

# Public name -> where it is defined. Imported on first use, so that `import tinymem` stays fast.
_PUBLIC = {
    "Recipe": "tinymem.recipe.recipe",
    "load_recipe": "tinymem.recipe.recipe",
    "parse_recipe": "tinymem.recipe.recipe",
    "Corpus": "tinymem.data.corpus",
    "load_corpus": "tinymem.data.corpus_files",
    "save_corpus": "tinymem.data.corpus_files",
    "make_corpus": "tinymem.data.build",
    "Rows": "tinymem.data.rows",
    "GPT": "tinymem.models.gpt2",
    "GPTConfig": "tinymem.models.gpt2",
    "model_family": "tinymem.models.families",
    "load_checkpoint": "tinymem.models.checkpoint",
    "save_checkpoint": "tinymem.models.checkpoint",
    "save_edited": "tinymem.models.edited",
    "Evaluator": "tinymem.evaluation.evaluator",
    "MetricColumn": "tinymem.evaluation.metric",
    "metric": "tinymem.evaluation.metric",
    "train": "tinymem.training.loop",
    "AblationConfig": "tinymem.mitigation.ablation",
    "MethodConfig": "tinymem.mitigation.config",
    "MitigationData": "tinymem.mitigation.method",
    "Properties": "tinymem.mitigation.method",
    "Scores": "tinymem.mitigation.ablation",
    "scorer": "tinymem.mitigation.method",
    "editor": "tinymem.mitigation.method",
    "mitigate": "tinymem.mitigation.run",
    "parse_call": "tinymem.mitigation.method",
    "evaluate_checkpoint": "tinymem.runs.evaluate",
    "mitigate_checkpoint": "tinymem.runs.checkpoint",
    "load_sweep": "tinymem.recipe.sweep",
    "open_sweep": "tinymem.sweep.run",
    "run_sweep": "tinymem.sweep.run",
    "local_engine": "tinymem.sweep.run",
    "subject_of_corpus": "tinymem.mitigation.run",
    "subject_of_rows": "tinymem.mitigation.run",
    "report_figure": "tinymem.report.figures.registry",
    "report_table": "tinymem.report.tables.registry",
    "UserError": "tinymem.errors",
    "load_plugin": "tinymem.registry",
    "run": "tinymem.runs.pipeline",
    "open_run": "tinymem.runs.pipeline",
}

# Public subpackages, imported on first use too: `tinymem.zoo.load(name)`.
_PACKAGES = ("zoo",)

__all__ = ["__version__", *sorted((*_PUBLIC, *_PACKAGES))]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _PACKAGES:
        return import_module(f"tinymem.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tinymem' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
