"""The shipped checkpoints: `zoo.load(name)` gives a model with its corpus; `tinymem zoo` lists, verifies and describes them."""

from __future__ import annotations

from tinymem.zoo.loading import Loaded, load

__all__ = ["Loaded", "load"]
