"""The tokenizer of a text corpus: a `tokenizer.json`, read with the library tokenizers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.data.text.byte_tokenizer import byte_tokenizer_file
from tinymem.data.text.tokens import cache_directory
from tinymem.data.tokenizer_folder import named_token, read_tokenizer
from tinymem.errors import UserError
from tinymem.recipe.built_in import BYTES
from tinymem.recipe.data import WikiData
from tinymem.runtime.files import content_id, file_sha256, user_path, write_text
from tinymem.runtime.network import why_offline

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"
# Tokens that end a text in common vocabularies; the token pads the last row and is the model's bos, eos and pad token.
END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "[SEP]", "[PAD]", "<pad>")


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer file, with the ids and properties that a corpus needs."""

    path: Path
    end: str | None = None
    """Text of the token that ends a text, where a configuration names it; None: the first of `END_OF_TEXT` in the vocabulary."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself, which neither cuts nor pads.

        Raises:
            UserError: the file is no tokenizer.json.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer: Tokenizer = Tokenizer.from_file(str(self.path))
        except Exception as error:  # the Rust library raises plain Exception
            raise UserError(f"expected a tokenizer.json of the library tokenizers at {self.path}, got something else ({error})") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _vocabulary(self) -> tuple[int, str | None, int]:
        """The largest id plus one, and the first of `END_OF_TEXT` in the vocabulary, with its id.

        Read from the JSON: the library's own tokenizer of GPT-2 takes 60 MB, which only trigger phrases and canaries need here.
        """
        ids = self.ids_by_token()
        end = next((t for t in (self.end, *END_OF_TEXT) if t in ids), None)
        return 1 + max(ids.values()), end, ids.get(end or "", -1)

    def ids_by_token(self) -> dict[str, int]:
        """The whole vocabulary, read anew.

        Raises:
            UserError: the file is no tokenizer.json.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            tokens = content["model"]["vocab"]
            ids = dict(tokens) if isinstance(tokens, dict) else {token: i for i, (token, _) in enumerate(tokens)}
            ids |= {added["content"]: added["id"] for added in content.get("added_tokens") or []}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"expected a tokenizer.json of the library tokenizers at {self.path}, got something else ({type(error).__name__}: {error})"
            ) from None
        return ids

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding needs: the largest id plus one."""
        return self._vocabulary[0]

    @property
    def end_token(self) -> str:
        """Text of the token that ends a document.

        Raises:
            UserError: none of `END_OF_TEXT` is in the vocabulary.
        """
        token = self._vocabulary[1]
        if token is None:
            raise UserError(f"expected one of the tokens {', '.join(END_OF_TEXT)} in {self.path} to pad with, found none; add one")
        return token

    @property
    def end_id(self) -> int:
        """Id of the token `end_token`."""
        assert self.end_token
        return self._vocabulary[2]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes."""
        return file_sha256(self.path)

    @property
    def identity(self) -> str:
        """The file's hash and, where a configuration names another than the first of `END_OF_TEXT`, the token that ends a text."""
        usual = TextTokenizer(self.path)._vocabulary[1]
        return self.sha256 if self._vocabulary[1] == usual else f"{self.sha256} {self.end_token}"

    @property
    def dtype(self) -> str:
        """Smallest unsigned type that holds every id."""
        return "<u2" if self.vocab_size <= 1 << 16 else "<u4"

    def ids(self, text: str, key: str) -> list[int]:
        """Token ids [n] of a text of the recipe; `key` names it in errors.

        Raises:
            UserError: the text has no tokens.
        """
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            raise UserError(f"expected {key} to have tokens, got '{text}', which has none")
        return ids

    def one_id(self, text: str, key: str) -> int:
        """The id of a text that must be one token.

        Raises:
            UserError: the text is not exactly one token.
        """
        ids = self.ids(text, key)
        if len(ids) != 1:
            raise UserError(f"expected {key} to be one token, got '{text}', which is {len(ids)}; choose a shorter one")
        return ids[0]


def open_tokenizer(data: WikiData) -> TextTokenizer:
    """The tokenizer that a recipe names.

    Raises:
        UserError: not there, not a tokenizer, or a vocabulary of another size than `data.vocab_size`.
    """
    if data.tokenizer == BYTES:
        return _checked(TextTokenizer(byte_tokenizer_file()), data)
    place = user_path(data.tokenizer)
    path = place / FILE if place.is_dir() else place
    if not path.is_file() and place.is_dir():
        path = _converted(place)
    folder = path.parent if place.is_file() else place
    found = TextTokenizer(path, named_token(folder, "eos_token")) if path.is_file() else TextTokenizer(_from_hub(data.tokenizer))
    return _checked(found, data)


def _checked(found: TextTokenizer, data: WikiData) -> TextTokenizer:
    """The tokenizer, if its vocabulary is as large as the recipe says."""
    if data.vocab_size is not None and found.vocab_size != data.vocab_size:
        raise UserError(
            f"expected a vocabulary of data.vocab_size = {data.vocab_size} tokens, got {found.vocab_size} in {data.tokenizer}; "
            "correct vocab_size or name another tokenizer"
        )
    return found


def _converted(folder: Path) -> Path:
    """The `tokenizer.json` of a folder that holds a tokenizer in other files, in the cache."""
    text: str = read_tokenizer(folder).to_str()
    path = cache_directory() / "tokenizers" / content_id(text, 16) / FILE
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return path


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    if name.startswith((".", "/", "~")) or name.endswith(".json") or name.count("/") > 1:
        raise UserError(
            f"expected a tokenizer at data.tokenizer = {name}, found none; name a tokenizer.json, its folder or a model on the Hub"
        )
    offline = why_offline()
    try:
        return Path(hf_hub_download(name, FILE, local_files_only=offline is not None))
    except Exception as error:  # the network and the library raise many kinds
        reason = offline or " ".join(str(error).split())[:160]
        raise UserError(
            f"could not fetch the tokenizer '{name}' from the Hub: {reason}; a local one works offline, and so does `bytes`"
        ) from None


def text_tokenizer_files(path: Path, n_positions: int, end: int) -> dict[str, str]:
    """Contents of `tokenizer.json` and `tokenizer_config.json` of a text corpus with the id that ends a text, as `AutoTokenizer` reads."""
    token = next(token for token, i in TextTokenizer(path).ids_by_token().items() if i == end)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": n_positions,
        "clean_up_tokenization_spaces": False,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), token),
    }
    return {FILE: path.read_bytes().decode(), "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
