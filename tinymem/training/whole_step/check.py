"""Whether the kernels can be trusted where they run for the first time: their gradient beside autograd's."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import Tensor

Gradient = Callable[[], Tensor]
WORSE, FLOOR = 2, 0.02
"""How many times as far from fp32's gradient as PyTorch's in the same precision the kernels' may be, and what is always allowed besides."""


def right(compiling: Callable[[], Callable[[], None]], kernels: Gradient, exact: Gradient, short: Gradient, what: str) -> bool:
    """Whether the kernels run, and give a gradient as near to that in fp32 as PyTorch's in their precision; if not, it is said.

    Args:
        compiling: begins to compile the kernels, and returns what waits for them: autograd goes on meanwhile.
        kernels: makes the flat gradient by kernels.
        exact: by autograd in fp32.
        short: by autograd in the kernels' precision.
        what: goes through autograd then.
    """
    try:
        wait = compiling()
        try:
            expected = exact()
        finally:
            wait()
        far = _distance(kernels(), expected)
        if not far <= FLOOR:  # or is no number; else nobody needs to know how far PyTorch's is
            allowed = WORSE * _distance(short(), expected) + FLOOR
            if not far <= allowed:
                raise ArithmeticError(f"their gradient is {far:.1%} from that in fp32, where {allowed:.1%} are allowed")
    except Exception as error:  # triton's own errors have no common class
        reason = str(error).partition("\n")[0] or type(error).__name__
        warnings.warn(f"{what} goes through autograd, since the kernels of training.kernels do not run here: {reason}", stacklevel=3)
        return False
    return True


def _distance(gradient: Tensor, exact: Tensor) -> float:
    """How far a gradient is from fp32's, as a share of its length."""
    return float((gradient - exact).norm() / exact.norm())
