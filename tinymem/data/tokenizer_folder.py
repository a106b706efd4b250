"""The tokenizer in a model's folder, of any kind that transformers reads, and the model's special tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymem.errors import UserError, described
from tinymem.runtime.files import read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE, CONFIG, MODEL_CONFIG = "tokenizer.json", "tokenizer_config.json", "config.json"
NAMED_IN = (CONFIG, "special_tokens_map.json")
OTHERS = (CONFIG, "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of any kind."""
    return any((folder / name).is_file() for name in (FILE, *OTHERS))


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, which neither cuts nor pads whatever its files say; the network is not asked.

    Raises:
        UserError: none there, or files that are no tokenizer.
    """
    if not has_tokenizer(folder):
        raise UserError(f"expected a tokenizer in {folder} for text, found no {FILE}; give rows of token ids instead")
    try:
        tokenizer = _from_file(folder / FILE) if (folder / FILE).is_file() else _through_transformers(folder)
    except Exception as error:  # both libraries raise many kinds
        raise UserError(f"expected a tokenizer that transformers reads in {folder}, got: {described(error)[:160]}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _from_file(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    found: Tokenizer = Tokenizer.from_file(str(path))
    return found


def _through_transformers(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer, GPT2Tokenizer

    try:
        found = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        if not (folder / "merges.txt").is_file():
            raise
        found = GPT2Tokenizer.from_pretrained(str(folder), local_files_only=True)
    tokenizer: Tokenizer = found.backend_tokenizer
    return tokenizer


def named_token(folder: Path, name: str) -> str | None:
    """Text of a special token (`eos_token`, `pad_token`, ...) that a tokenizer's configuration names; None where it names none."""
    for file in NAMED_IN:
        found = read_object(folder / file, "tokenizer configuration").get(name) if (folder / file).is_file() else None
        text = found.get("content") if isinstance(found, dict) else found
        if isinstance(text, str):
            return text
    return None


@dataclass(frozen=True)
class ModelTokens:
    """The tokens of a model's folder: its tokenizer, read once and only for text, and the ids of its special tokens."""

    folder: Path

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; see `read_tokenizer`."""
        return read_tokenizer(self.folder)

    @cached_property
    def pad(self) -> frozenset[int]:
        """Ids of padding: those that the tokenizer's configuration and the model's name."""
        return frozenset(self._named("pad"))

    @cached_property
    def eos(self) -> frozenset[int]:
        """Ids that end a sequence."""
        return frozenset(self._named("eos"))

    @cached_property
    def bos(self) -> tuple[int, ...]:
        """Ids that begin a sequence, the tokenizer's own first."""
        return tuple(self._named("bos"))

    @cached_property
    def opening(self) -> str:
        """The first of `bos`, as text, where the tokenizer by itself puts it before a text, as it then does in transformers; else empty."""
        first = [*self.bos[:1]]
        try:
            begins = self.tokenizer.encode("", add_special_tokens=True).ids[:1] == first != []
        except Exception:  # the Rust library raises plain Exception, here of a vocabulary without the token for what is unknown
            return ""
        return self.decode([first])[0] if begins else ""

    def first(self) -> list[int]:
        """The id that begins a sequence, for `--bos`.

        Raises:
            UserError: there is none.
        """
        if not self.bos:
            raise UserError(f"expected a token that begins a text (bos_token) in {self.folder} for --bos, found none; leave --bos out")
        return [self.bos[0]]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens that the tokenizer would add.

        Raises:
            UserError: the vocabulary lacks something in a text.
        """
        try:
            return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        except UserError:
            raise
        except Exception as error:  # the Rust library raises plain Exception
            raise UserError(f"the tokenizer in {self.folder} cannot encode '{texts[0][:40]}', or a text after it: {error}") from None

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row of token ids, special tokens included."""
        texts: list[str] = self.tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=False)
        return texts

    def _named(self, name: str) -> Iterator[int]:
        text = named_token(self.folder, f"{name}_token")
        if text is not None and has_tokenizer(self.folder):
            found = self.tokenizer.token_to_id(text)
            yield from () if found is None else (found,)
        config = read_object(self.folder / MODEL_CONFIG) if (self.folder / MODEL_CONFIG).is_file() else {}
        yield from _ids(config.get(f"{name}_token_id"))


def _ids(value: Any) -> list[int]:
    found = value if isinstance(value, list) else [value]
    return [i for i in found if isinstance(i, int) and not isinstance(i, bool)]
