"""Prompts and targets that are padded in any way have the windows of the same pairs without padding."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from tinymem.data.own_rows import OwnRows, RowFiles, read_own_rows
from tinymem.errors import UserError

EOS, PAD, BOS = 0, 1, 2
VOCABULARY = 30
Pair = tuple[list[int], list[int]]


def model_folder(place: Path, pad: int, bos: int = BOS) -> Path:
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"pad_token_id": pad, "eos_token_id": EOS, "bos_token_id": bos}))
    return place


@pytest.fixture(params=[PAD, EOS], ids=["pad", "pad-is-eos"])
def pad(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def folder(tmp_path: Path, pad: int) -> Path:
    return model_folder(tmp_path / "model", pad)


def own_of(folder: Path, lines: list[dict[str, list[int]]], **options: object) -> OwnRows:
    path = folder.parent / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_own_rows(RowFiles(forget=path, **options), folder, VOCABULARY)  # type: ignore[arg-type]


def pairs_of(count: int, seed: int) -> list[Pair]:
    """Pairs with prompts of 2 to 7 tokens, targets of 1 to 5, some of which EOS ends."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        prompt, target = ([draw.randrange(3, VOCABULARY) for _ in range(draw.randint(*span))] for span in ((2, 7), (1, 5)))
        found.append((prompt, [*target, EOS] if number % 3 == 0 else target))
    return found


def windows(own: OwnRows) -> list[Pair]:
    """Prompt and target of each row, as they are tested."""
    return [
        (ids[:prompt], ids[prompt:end])
        for ids, prompt, end in zip(own.forget.ids.tolist(), own.forget.prompt.tolist(), own.forget.end.tolist(), strict=True)
    ]


@pytest.mark.parametrize("target_right", [False, True])
@pytest.mark.parametrize("sides", ["left", "right", "both"])
def test_each_pair_keeps_its_own_window(folder: Path, pad: int, sides: str, target_right: bool) -> None:
    pairs = pairs_of(40, seed=1)
    lines = []
    for prompt, target in pairs:
        fill = [pad] * (9 - len(prompt))
        padded = {"left": [*fill, *prompt], "right": [*prompt, *fill], "both": [*fill, *prompt, *fill]}[sides]
        lines.append({"prompt": padded, "target": [*target, *[pad] * (7 - len(target))] if target_right else target})
    ended = [(prompt, [*target, EOS] if pad == EOS and target_right and target[-1] != EOS else target) for prompt, target in pairs]
    own = own_of(folder, lines)
    assert windows(own) == ended  # of padding that also ends texts the first token behind a text is its end, as in any row
    plain = own_of(folder, [{"prompt": prompt, "target": target} for prompt, target in ended])
    assert (own.digest, own.prompt, own.match) == (plain.digest, None, plain.match)


def test_padding_at_the_start_of_targets(folder: Path, pad: int) -> None:
    pairs = pairs_of(20, seed=2)
    assert windows(own_of(folder, [{"prompt": p, "target": [*[pad] * (2 + len(p)), *t]} for p, t in pairs])) == pairs


def test_prompts_of_one_length_have_it_without_their_padding(folder: Path, pad: int) -> None:
    own = own_of(folder, [{"prompt": [*[pad] * 4, *range(n, n + 8)], "target": [*range(12, 18)]} for n in (3, 4)])
    assert (own.prompt, own.match, len(own.forget)) == (8, 6, 2)


def test_arrays_of_prefixes_and_suffixes(folder: Path, pad: int) -> None:
    pairs = pairs_of(12, seed=3)
    place = folder.parent / "X_prefix.npy"
    np.save(place, [[*[pad] * (9 - len(p)), *p] for p, _ in pairs])
    np.save(place.with_name("X_suffix.npy"), [[*t, EOS, *[pad] * (7 - len(t))] for _, t in pairs])
    own = read_own_rows(RowFiles(forget=place), folder, VOCABULARY)
    assert [(p, t[: t.index(EOS)]) for p, t in windows(own)] == [(p, [i for i in t if i != EOS]) for p, t in pairs]


def test_an_attention_mask_of_both_or_of_the_prompt(folder: Path) -> None:
    """What it leaves out is padding, whatever stands there."""
    expected = [([5, 6, 7], [8, 9])]
    both = {"prompt": [4, 4, 5, 6, 7, 4], "target": [4, 8, 9, 4], "attention_mask": [0, 0, 1, 1, 1, 0, 0, 1, 1, 0]}
    prompt_alone = {"prompt": [4, 4, 5, 6, 7, 4], "target": [8, 9], "attention_mask": [0, 0, 1, 1, 1, 0]}
    assert windows(own_of(folder, [both])) == windows(own_of(folder, [prompt_alone])) == expected
    with pytest.raises(UserError, match="attention_mask of 0 and 1 for each id in line 1"):
        own_of(folder, [{**both, "attention_mask": [0, 1, 1]}])


def test_a_prompt_or_a_target_of_padding_alone_is_left_out_and_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", PAD)
    lines = [{"prompt": [PAD, 5, 6], "target": [7, 8]}, {"prompt": [PAD] * 3, "target": [7, 8]}, {"prompt": [5, 6, 7], "target": [PAD] * 2}]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert windows(own_of(folder, lines)) == [([5, 6], [7, 8])]
    assert [str(w.message).split(" of ")[0] for w in said] == ["rows are left out, 2 too short for prompt 50 and match 50: lines 2, 3"]
    with pytest.raises(UserError, match="lines 2, 3"):
        own_of(folder, lines, strict=True)


def test_a_single_token_that_begins_or_ends_texts_stays(tmp_path: Path) -> None:
    """GPT-2's one special token: prompts that begin with it, and a boundary of documents between prompt and target, are no padding."""
    folder = model_folder(tmp_path / "model", EOS, bos=EOS)
    pairs = [([EOS, 5, 6], [7, 8]), ([EOS, 5, EOS], [7, 9]), ([EOS, 9, 6], [EOS, 9])]
    assert windows(own_of(folder, [{"prompt": p, "target": t} for p, t in pairs])) == pairs
