"""A model too large for one GPU, spread over several of one machine by accelerate: some blocks on each, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from torch import nn

from tinymem.errors import UserError
from tinymem.models.adapters import family_of
from tinymem.models.gpt2 import GPT


def spread(model: nn.Module, devices: Sequence[str]) -> nn.Module:
    """The model with its blocks moved to several devices, in turn and about equally many; ids go in and logits come out on the first.

    Methods edit it as they edit a model on one device. What they keep for all weights at once (Subnet's and BalancedSubnet's scores) is on
    the first device.

    Raises:
        UserError: our own GPT, fewer blocks than devices, or accelerate is not installed.
    """
    if isinstance(model, GPT):
        raise UserError("expected a model of transformers to spread over devices, got our GPT, which fits one; name one device")
    refuse_without_accelerate()
    from accelerate import dispatch_model

    spread_model: nn.Module = dispatch_model(model, device_map=device_map(model, devices), force_hooks=True)
    return spread_model


def refuse_without_accelerate() -> None:
    """Raise UserError where what spreads models is not installed."""
    if find_spec("accelerate") is None:
        raise UserError("a model is spread over devices by accelerate, which is not installed; try: pip install 'tinymem[spread]'")


def devices_of(model: nn.Module) -> int:
    """Number of devices that a model's parameters are on: more than one where it is spread."""
    return len({parameter.device for parameter in model.parameters()})


def refuse_spread(model: nn.Module, what: str) -> None:
    """Raise UserError for a model on several devices, where a method combines what lies on more than one of them."""
    if (count := devices_of(model)) > 1:
        raise UserError(f"expected a model on one device for {what}, got one spread over {count}; try act or balanced-subnet")


def device_map(model: nn.Module, devices: Sequence[str]) -> dict[str, str]:
    """The device of each block, and of the modules before (the first) and behind all blocks (the last), by name.

    Raises:
        UserError: fewer blocks than devices.
    """
    blocks = family_of(model).blocks
    count = len(list(model.get_submodule(blocks).children()))
    if count < len(devices):
        raise UserError(f"expected at least a block for each of {len(devices)} devices, got {count}; name fewer")
    places = dict(_places(model, blocks, [devices[k * len(devices) // count] for k in range(count)]))
    owners: dict[int, str] = {}
    for name, device in sorted(places.items(), key=lambda place: devices.index(place[1])):  # a tied head goes where the embedding is
        weights = [id(parameter) for parameter in model.get_submodule(name).parameters()]
        places[name] = next((owners[weight] for weight in weights if weight in owners), device)
        owners |= dict.fromkeys(weights, places[name])
    return places


def bytes_by_device(model: nn.Module, devices: Sequence[str]) -> dict[str, int]:
    """Bytes of the parameters that `spread` puts on each device; tied ones count once."""
    places, found = device_map(model, devices), dict.fromkeys(devices, 0)
    for name, parameter in model.named_parameters():
        device = next(device for module, device in places.items() if name.startswith(f"{module}."))
        found[device] += parameter.numel() * parameter.element_size()
    return found


def _places(model: nn.Module, blocks: str, devices: list[str]) -> Iterator[tuple[str, str]]:
    found, path = False, ""
    for name in blocks.split("."):
        for child, _ in model.get_submodule(path).named_children():
            if child == name:
                found = True
            else:
                yield f"{path}.{child}".lstrip("."), devices[-1] if found else devices[0]
        found, path = False, f"{path}.{name}".lstrip(".")
    yield from ((f"{blocks}.{k}", device) for k, device in enumerate(devices))
