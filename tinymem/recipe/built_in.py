"""What recipes may name without a file."""

from __future__ import annotations

BYTES = "bytes"
"""The tokenizer whose tokens are the bytes of a text."""
