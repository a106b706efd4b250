# ruff: noqa: F401, F811 (fixtures are imported by name)
"""`tokenizer: bytes`, tokenizers trained on one's own text, and those that cannot be fetched."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
import transformers
from data_text import cache, folder, plain_ids, recipe, words, write_parquet
from helpers import tinymem
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from tinymem.data.build import make_corpus
from tinymem.data.text import source as text_source
from tinymem.data.text.byte_tokenizer import byte_letters, byte_tokenizer
from tinymem.data.text.source import open_source
from tinymem.data.text.tokenizer import TextTokenizer, open_tokenizer
from tinymem.data.text.tokenizer_training import train_tokenizer
from tinymem.errors import UserError
from tinymem.recipe.recipe import parse_recipe
from tinymem.recipe.sizes import planned_vocabulary
from tinymem.runtime import network

BYTES = byte_tokenizer()


@pytest.mark.slow
@given(st.text() | st.sampled_from(["<|endoftext|>", "a<|endoftext|>b", "\x00\r\n\t", "ü漢🎉", "Ġ", "  two  "]))
def test_ids_are_the_bytes_and_come_back(text: str) -> None:
    ids = BYTES.encode(text, add_special_tokens=False).ids
    assert ids == list(text.encode()) and BYTES.decode(ids, skip_special_tokens=False) == text


def test_the_alphabet_is_that_of_byte_level_tokenizers() -> None:
    assert set(byte_letters()) == set(pre_tokenizers.ByteLevel.alphabet()) and len(byte_letters()) == 256
    assert byte_letters()[ord("A")] == "A" and byte_letters()[ord(" ")] == "Ġ" and byte_letters()[ord("\n")] == "Ċ"


@pytest.mark.processes
def test_a_corpus_of_bytes(tmp_path: Path) -> None:
    lines = words(120)
    path = write_parquet(tmp_path / "t.parquet", lines)
    made = make_corpus(recipe(path, Path("bytes"), {"kind": "duplication", "rows": 4}), tmp_path / "corpus", workers=1)
    assert (made.vocab_size, made.pad, made.eos) == (257, 256, 256)
    planned = recipe(path, Path("bytes"))
    assert planned_vocabulary(planned) == 257 and planned.data.without_places().tokenizer == "bytes"
    stream = "".join(lines).encode()
    assert all(bytes(row.tolist()) in stream for row in made.clean[:50])
    (tmp_path / "bytes").mkdir()
    assert open_tokenizer(planned.data).vocab_size == 257, "a folder of that name is ./bytes"


def test_a_trained_tokenizer_is_the_same_again_and_transformers_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("".join(words(300)))
    assert train_tokenizer([path], 400, tmp_path / "one") == train_tokenizer([path], 400, tmp_path / "two") == 400
    assert {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()} == {p.name: p.read_bytes() for p in (tmp_path / "two").iterdir()}
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "one")
    ours = open_tokenizer(recipe(path, tmp_path / "one").data)
    assert (theirs.eos_token, theirs.eos_token_id) == (ours.end_token, ours.end_id) == ("<|endoftext|>", 0)
    text = "ban ü 漢 <x> \n"
    assert theirs.decode(theirs(text)["input_ids"]) == text and theirs(text)["input_ids"] == plain_ids(
        tmp_path / "one" / "tokenizer.json", [text]
    )


def test_what_stands_once_is_in_no_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("xylophone\n" + "again and again\n" * 50)
    size = train_tokenizer([path], 4096, tmp_path / "out")
    found = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_vocab()
    assert size == len(found) < 300 and "again" in found and not [token for token in found if token in "xylophone" and len(token) > 1]


def test_the_verb(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"body": line}) + "\n" for line in words(100)))
    out = tmp_path / "words"
    done = tinymem("data", "tokenizer", path, "--size", 300, "--column", "body", "--out", out)
    assert done.code == 0 and f"{out}: 300 tokens" in done.out, done.err
    assert "found" in tinymem("data", "tokenizer", path, "--out", out).one_line_error()
    for words_, message in (
        (("--size", 256), "from 257"), (("--size", 10**9), "262,144"), (("--column", "nothing"), "; name it with --column"),
    ):  # fmt: skip
        assert message in tinymem("data", "tokenizer", path, *words_, "--out", tmp_path / "x").one_line_error()
    assert "found nothing there" in tinymem("data", "tokenizer", tmp_path / "none.txt", "--out", tmp_path / "x").one_line_error()
    assert not (tmp_path / "x").exists()


# ---- offline ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The Hub's address is one of this machine that refuses connections; nothing is stored."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "sets"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return "127.0.0.1 cannot be reached"


def no_client(*arguments: object, **options: object) -> None:
    raise AssertionError("the client was asked, which tries for minutes")


@pytest.mark.parametrize("way", ["refused", "set"])
def test_what_must_be_fetched_fails_at_once(
    way: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if way == "refused":
        reason = request.getfixturevalue("refused")
    else:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "sets"))
        reason = "HF_HUB_OFFLINE is set"
    monkeypatch.setattr("datasets.load_dataset", no_client)
    monkeypatch.setattr("huggingface_hub.utils._http.http_backoff", no_client)
    with pytest.raises(UserError, match=f"could not fetch the tokenizer 'no-one/nothing' from the Hub: {reason}") as error:
        open_tokenizer(recipe(tmp_path, Path("no-one/nothing")).data)
    assert "`bytes`" in str(error.value)
    data = parse_recipe({"data": {"kind": "wiki", "source": "no-such-text"}}).data
    with pytest.raises(UserError, match=f"no such file or folder, and {reason}"):
        open_source(data)


def test_a_slow_network_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "SECONDS", 0.01)
    monkeypatch.setattr(network, "_answers", lambda *_: time.sleep(0.2) or True)
    assert "cannot be reached" in str(network.why_offline())


def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert network.why_offline() is None


@pytest.mark.parametrize(
    ("proxies", "place"),
    [({}, ("hub.test", 443)), ({"https": "http://p.test:3128"}, ("p.test", 3128)), ({"https": "p.test:8"}, ("p.test", 8))],
)
def test_a_proxy_stands_for_the_hub(proxies: dict[str, str], place: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "getproxies", lambda: proxies)
    monkeypatch.setattr(network, "proxy_bypass", lambda host: False)
    assert network._place("https://hub.test") == place


@pytest.mark.usefixtures("refused")
def test_missing_text_is_noticed_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_client)
    monkeypatch.setattr(text_source, "hub_tables", no_client)
    for missing in (tmp_path / "missing", Path("missing.txt")):
        with pytest.raises(UserError, match="found nothing there"):
            make_corpus(recipe(missing, Path("gpt2")), tmp_path / "out", workers=1)
    with pytest.raises(UserError, match="expected a tokenizer at data"):
        make_corpus(parse_recipe({"data": {"kind": "wiki", "source": "no-one/nothing", "tokenizer": str(tmp_path / "t.json")}}), workers=1)


def test_missing_rows_are_noticed_before_a_model_is_loaded(tmp_path: Path) -> None:
    checkpoint = tmp_path / "of-nothing"
    checkpoint.mkdir()
    for option in ("--forget", "--retain", "--corpus"):
        assert f"for {option} at" in tinymem("evaluate", checkpoint, option, tmp_path / "rows.jsonl").one_line_error()


def test_stored_text_is_used_offline(folder: Path, refused: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A data set that `datasets` has stored is loaded from there, with its network off."""
    seen = []
    (tmp_path / "sets" / "no-one___nothing").mkdir(parents=True)
    import datasets

    monkeypatch.setattr("datasets.load_dataset", lambda name, config: seen.append(datasets.config.HF_HUB_OFFLINE) or {"train": []})
    before = datasets.config.HF_HUB_OFFLINE
    assert text_source.hub_tables("no-one/nothing", None) == {"train": []}
    assert (seen, datasets.config.HF_HUB_OFFLINE) == ([True], before)
