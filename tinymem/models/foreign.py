"""Models of other families, and GPT-2s that our class cannot hold, through transformers' classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tinymem.errors import UserError
from tinymem.models.families import family_of_class
from tinymem.models.gpt2_folder import published_tensors
from tinymem.models.layout import Expected, Layout
from tinymem.models.weights import CONFIG, Folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_foreign(folder: Folder, check: Callable[[nn.Module], None]) -> tuple[nn.Module, Layout]:
    """Load a folder through transformers, in float32 on the CPU.

    Args:
        folder: with `config.json` and safetensors.
        check: sees the model before it has memory, and raises where there is not enough.

    Raises:
        UserError: a class of no registered family, weights that do not fill it, or something that transformers refuses.
    """
    model_class = _model_class(folder)
    assert model_class.config_class is not None
    with _transformers(folder.path):
        made = model_class.config_class.from_pretrained(folder.path, local_files_only=True)
    folder.check_layers(int(getattr(made, "num_hidden_layers", 0)))
    with _transformers(folder.path), torch.device("meta"):
        shell = model_class(made)
    layout = Expected(f"a {model_class.__name__}", published_tensors(shell), shell.base_model_prefix).layout(folder)
    check(shell)
    return _filled(folder.path, model_class, made), layout


def _filled(folder: Path, model_class: type[PreTrainedModel], config: PretrainedConfig) -> nn.Module:
    loader: Any = model_class
    with _transformers(folder):
        model, report = loader.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    if unfilled := [*report["missing_keys"], *report["mismatched_keys"]]:  # the layout knows better; nothing random passes
        raise UserError(f"expected weights that fill a {model_class.__name__} in {folder}, got none for '{unfilled[0]}'")
    loaded: nn.Module = model
    return loaded


def _model_class(folder: Folder) -> type[PreTrainedModel]:
    """The class with a language-model head that transformers takes for a configuration: by `model_type`, else by `architectures`."""
    if find_spec("transformers") is None:
        raise UserError(f"{folder.path} is loaded through transformers, which is not installed; try: pip install 'tinymem[hf]'")
    import transformers

    kind, named = folder.config.get("model_type"), folder.named_class
    if kind is None and named is None:
        raise UserError(f"expected model_type or architectures in {folder.path / CONFIG}, got neither; write down which model it is")
    if isinstance(kind, str):
        config_class = _at(transformers.CONFIG_MAPPING, kind)
    else:
        config_class = getattr(getattr(transformers, named or "", None), "config_class", None)
    found: type[PreTrainedModel] | None = _at(transformers.MODEL_FOR_CAUSAL_LM_MAPPING, config_class) if config_class else None
    _check_family(folder.path, found.__name__ if found else str(named or kind), named)
    assert found is not None  # a registered family's class
    return found


def _at(mapping: Any, key: object) -> Any:
    """The value of one of transformers' mappings, which import it on access and of which not all have a `get`; None where there is none."""
    try:
        return mapping[key]
    except KeyError:
        return None


def _check_family(folder: Path, name: str, named: str | None) -> None:
    try:
        family_of_class(name)
    except UserError as error:
        raise UserError(f"{folder}: {error}" + (f" (its config.json says {named})" if named not in (name, None) else "")) from None


@contextmanager
def _transformers(folder: Path) -> Iterator[None]:
    """Let transformers work without a word on the terminal, and make one line of whatever it raises."""
    from transformers.utils import logging as found

    logging: Any = found
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except Exception as error:  # configurations and weights fail in as many ways as there are classes
        raise UserError(f"transformers could not load {folder}: {' '.join(str(error).split())[:200]}") from None
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
