"""Models of other families, and GPT-2s that our class cannot hold, through transformers' classes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tinymem.errors import UserError, one_line
from tinymem.models.families import family_of_class, prepare_model
from tinymem.models.gpt2_folder import published_tensors
from tinymem.models.layout import Expected, Layout
from tinymem.models.spread import device_map, spread
from tinymem.models.weights import CONFIG, Folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_foreign(
    folder: Folder, devices: Sequence[str], dtype: torch.dtype, check: Callable[[nn.Module], None]
) -> tuple[nn.Module, Layout]:
    """A model of transformers, read from a folder straight to its devices in one type: a tensor at a time is on the CPU.

    Args:
        folder: with `config.json` and safetensors.
        devices: where the model goes, spread where there are several.
        dtype: floating-point type of its weights, whatever the folder's is.
        check: sees the model before it has memory, and raises where there is not enough.

    Raises:
        UserError: a class of no registered family, weights that do not fill it, or something that transformers refuses.
    """
    model_class = _model_class(folder)
    assert model_class.config_class is not None
    with _transformers(folder.path):
        config = model_class.config_class.from_pretrained(folder.path, local_files_only=True)
    folder.check_layers(int(getattr(config, "num_hidden_layers", 0)))
    layout = _layout(folder, model_class, config, dtype, check)
    if not layout.agrees():  # a head of its own in spite of the configuration
        config.tie_word_embeddings = False
        layout = _layout(folder, model_class, config, dtype, check)
    with _transformers(folder.path), _parameters_on_meta():
        model = _made(model_class, config, dtype)
    _allocate(model, devices)
    layout.fill(published_tensors(model))
    model.config.use_cache = False  # no pass that is measured or trained continues another
    model.config.return_dict = True  # else a pass gives a tuple, which not even transformers' own classes expect
    prepared = prepare_model(model)
    return spread(prepared, devices) if len(devices) > 1 else prepared, layout


def _layout(
    folder: Folder, model_class: type[PreTrainedModel], config: PretrainedConfig, dtype: torch.dtype, check: Callable[[nn.Module], None]
) -> Layout:
    """Where the folder has the tensors of a model, which never has memory."""
    with _transformers(folder.path), torch.device("meta"):
        shell = _made(model_class, config, dtype)
    layout = Expected(f"a {model_class.__name__}", published_tensors(shell), shell.base_model_prefix).layout(folder)
    check(shell)
    return layout


def _made(model_class: type[PreTrainedModel], config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    maker: Any = model_class
    model: PreTrainedModel = maker._from_config(copy.deepcopy(config), dtype=dtype)
    return model


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Inside the context new parameters have a shape and a type but no memory; buffers, which no file holds, have their values."""

    def without_memory(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        return parameter if parameter is None or parameter.is_meta else nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    hook: Any = without_memory  # torch's type of it forgets that what it returns is taken
    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _allocate(model: nn.Module, devices: Sequence[str]) -> None:
    """Give the parameters memory on their devices, tied ones once, and move the buffers of a model on one device there."""
    places = device_map(model, devices) if len(devices) > 1 else {"": devices[0]}
    made: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    device = next(device for place, device in places.items() if not place or f"{path}.".startswith(f"{place}."))
                    made[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device=device), parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
    if len(devices) == 1:
        model.to(devices[0])


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
    _check_family(folder.path, found.__name__ if found else str(kind if isinstance(kind, str) else named), named)
    if found is None:
        raise UserError(f"expected a model_type that transformers knows in {folder.path / CONFIG}, got {one_line(str(kind))[:40]!r}")
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
