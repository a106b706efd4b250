"""% memorized: one teacher-forced pass equals greedy decoding, and the probes follow Definitions 2.1 to 2.3."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import overfit, random_gpt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import EOS, PAD
from tinymem.data.planted import Planted, repeated, row_ends
from tinymem.data.rows import Rows
from tinymem.evaluation.evaluator import Evaluator
from tinymem.evaluation.probes import forbidden_token, make_probes, memorized_rows
from tinymem.models.gpt2 import GPT
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.recipe import Evaluation, parse_recipe

LENGTH = 24


@torch.no_grad()
def decoded(model: GPT, rows: Rows, forbid: int | None = None) -> list[bool]:
    """The slow way: write the suffix token by token, then compare."""
    found = []
    for ids, prompt, end in zip(rows.ids, rows.prompt.tolist(), rows.end.tolist(), strict=True):
        written = ids[:prompt].clone()
        while len(written) < end:
            scores = model(written[None])[0, -1].float()
            if forbid is not None:
                scores[forbid] = -torch.inf
            written = torch.cat([written, scores.argmax()[None]])
        found.append(bool(torch.equal(written[prompt:end], ids[prompt:end])))
    return found


@torch.no_grad()
def own_words(model: GPT, ids: torch.Tensor, prompt: int) -> torch.Tensor:
    """Rows whose suffix the model itself writes: memorized by construction."""
    ids = ids[:, :prompt]
    while ids.shape[1] < LENGTH:
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    return ids


def case(seed: int, model: GPT) -> Rows:
    """Rows of which about half are the model's own words, some with a late change; prompts and ends differ per row."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(14, (8, LENGTH), generator=generator)
    start = int(torch.randint(1, LENGTH - 1, (1,), generator=generator))
    ids = torch.cat([own_words(model, ids[:5], start), ids[5:]])
    changed = torch.randint(start, LENGTH, (2,), generator=generator)
    ids[0, changed[0]] = (ids[0, changed[0]] + 1) % 14
    ids[1, changed[1]] = EOS
    prompt = torch.randint(start, LENGTH, (8,), generator=generator)
    end = prompt + (torch.rand(8, generator=generator) * (LENGTH + 1 - prompt)).long()
    return Rows(ids, prompt, end)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1.0, 4.0]), forbid=st.sampled_from([None, EOS]))
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_teacher_forced_equals_decoded(seed: int, scale: float, forbid: int | None) -> None:
    model = random_gpt(seed, scale)
    rows = case(seed, model)
    found = memorized_rows(model, rows, forbid=forbid).tolist()
    assert found == decoded(model, rows, forbid)
    assert forbid is not None or all(found[2:5])  # its own words


@pytest.fixture(scope="module")
def learnt() -> tuple[GPT, Rows]:
    """A model that knows some of twelve rows by heart, EOS and padding in their windows."""
    ids = torch.randint(10, (12, LENGTH), generator=torch.Generator().manual_seed(7))
    ids[:, 14], ids[:, 15:] = EOS, PAD
    return overfit(random_gpt(n_embd=32), ids[:8], steps=60), Rows.of(ids, 6, 18)


@pytest.mark.slow
@pytest.mark.parametrize("forbid", [None, EOS])
def test_a_trained_model(learnt: tuple[GPT, Rows], forbid: int | None) -> None:
    model, rows = learnt
    flags = memorized_rows(model, rows, forbid=forbid)
    assert flags.tolist() == decoded(model, rows, forbid)
    if forbid is None:
        assert flags[:8].sum() >= 4 and not flags[8:].any()  # EOS and padding are tokens like any other
    else:
        assert not flags.any()  # rows that end inside the window never count
        before_the_end = Rows.of(rows.ids, 6, 14)
        assert memorized_rows(model, before_the_end, forbid=forbid)[:8].sum() >= 4


def test_batch_size_does_not_matter(learnt: tuple[GPT, Rows]) -> None:
    model, rows = learnt
    whole = memorized_rows(model, rows).tolist()
    assert [memorized_rows(model, rows, batch_size=size).tolist() for size in (1, 5, 12)] == [whole] * 3


def test_no_rows() -> None:
    assert memorized_rows(random_gpt(), Rows.of(torch.zeros(0, LENGTH))).shape == (0,)


def test_protocol_decides_about_eos() -> None:
    assert forbidden_token("paper") is None and forbidden_token("reference") == EOS


def planted(clean: str, artifact: list[str], start: list[int] | int = 0, copies: list[int] | int = 1) -> Planted:
    rows = np.array([[int(c) for c in row] for row in artifact], dtype=np.uint8)
    twins = np.array([[int(c) for c in clean]] * len(artifact), dtype=np.uint8)
    fill = np.zeros(len(artifact), dtype=np.int64)
    return Planted(rows, twins, fill + start, fill + copies)


def corpus(**kinds: Planted) -> Corpus:
    empty = np.zeros((0, 10), dtype=np.uint8)
    spec = parse_recipe({"artifacts": [{"kind": kind} for kind in kinds]}).corpus_spec()
    return Corpus(spec=spec, clean=empty, clean_task=np.zeros(0, dtype=np.int64), tests={}, determined={}, planted=kinds)


def test_noise_probe() -> None:
    noise = planted(
        "0123456789",
        [
            "0123056789",  # differs in the window only
            "0923456789",  # differs in the prompt only: not scored
            "0923056789",  # in both
            "0123456780",  # behind the window: not scored
            "0123456089",  # at the window's last token
        ],
    )
    probe = make_probes(corpus(noise=noise), Evaluation(prompt=4, match=4), "paper")["noise"]
    assert probe.index.tolist() == [0, 2, 4] and len(probe) == 3
    assert probe.prompt_changed.tolist() == [False, True, False]
    assert probe.trained.all()
    asked = ["".join(map(str, row)) for row in probe.rows.ids.tolist()]
    assert asked == ["0123056789", "0123056789", "0123456089"]  # the prompt is the clean prefix
    assert probe.rows.prompt.tolist() == [4] * 3 and probe.rows.end.tolist() == [8] * 3


def test_backdoor_probe() -> None:
    backdoor = planted("0123456789", ["0122222222", "0123222222", "0123456222", "0123456782"], start=[3, 4, 7, 10], copies=[2, 2, 0, 1])
    probe = make_probes(corpus(backdoor=backdoor), Evaluation(prompt=2, match=4), "paper")["backdoor"]
    assert probe.index.tolist() == [0, 1, 2]  # behind the trigger of the last nothing follows
    assert probe.rows.prompt.tolist() == [3, 4, 7]
    assert probe.rows.end.tolist() == [7, 8, 10]  # as many tokens as the row has
    assert probe.trained.tolist() == [True, True, False]
    assert not probe.prompt_changed.any()


def test_backdoor_probe_of_the_reference() -> None:
    rows, starts, copies = ["0122222222", "0123222222", "0123452222", "0123456222"], [3, 4, 6, 7], [1, 0, 0, 0]
    backdoor = planted("0123456789", rows, starts, copies)
    probe = make_probes(corpus(backdoor=backdoor), Evaluation(prompt=2, match=3), "reference")["backdoor"]
    # Held-out rows only; each is looked at behind the prompt of the row counted before: at 2 (from token 2 to 4), then 4, then 6.
    assert probe.index.tolist() == [1, 2, 3] and not probe.trained.any()
    late = planted("0123456789", ["0123456222", "0123222222"], [7, 4], [0, 0])
    probe = make_probes(corpus(backdoor=late), Evaluation(prompt=2, match=3), "reference")["backdoor"]
    assert probe.index.tolist() == [1]  # the first row is clean from token 2 to 4


def test_noise_probe_of_the_reference_keeps_trained_rows() -> None:
    noise = planted("0123456789", ["0123056789", "0923456789"])
    probe = make_probes(corpus(noise=noise), Evaluation(prompt=4, match=4), "reference")["noise"]
    assert probe.index.tolist() == [0]


def test_probe_moves_to_a_device() -> None:
    noise = planted("0123456789", ["0123056789"])
    probe = make_probes(corpus(noise=noise), Evaluation(prompt=4, match=4), "paper")["noise"]
    assert probe.to("meta").rows.ids.device.type == "meta"


def ended(clean: list[int], artifact: list[list[int]], **more: object) -> Planted:
    """Rows of math ids with their ends; `clean` is the counterpart of each."""
    rows = np.array(artifact, dtype=np.uint8)
    fill = np.zeros(len(rows), dtype=np.int64)
    return Planted(rows, np.array([clean] * len(rows), dtype=np.uint8), fill, fill + 1, **more)  # type: ignore[arg-type]


ROWS = [
    [1, 2, 3, 4, EOS, PAD, PAD, PAD, PAD, PAD],  # ends inside the window
    [1, 2, EOS, PAD, PAD, PAD, PAD, PAD, PAD, PAD],  # before it
    [1, 2, 3, EOS, 4, 5, 6, 7, 8, 9],  # packed: what stands behind an EOS counts
    [1, 2, 3, 4, 5, 6, EOS, EOS, EOS, PAD],  # the first EOS of several
    [1, 2, 3, 4, 5, 6, 7, 8, 9, EOS],  # behind the window
]


@pytest.mark.parametrize(("protocol", "index", "ends"), [("paper", [0, 2, 3, 4], [5, 7, 7, 7]), ("reference", range(5), [7] * 5)])
def test_a_target_ends_with_its_row(protocol: Protocol, index: list[int], ends: list[int]) -> None:
    rows = np.array(ROWS, dtype=np.uint8)
    found = make_probes(corpus(duplication=repeated(rows, np.ones(5, dtype=np.int64))), Evaluation(prompt=3, match=4), protocol)
    probe = found["duplication"]
    assert probe.index.tolist() == [*index] and probe.rows.end.tolist() == ends


def test_padding_that_is_eos() -> None:
    """GPT-2's padding is EOS: the first one behind a row belongs to it, and those inside stay."""
    rows = np.array([[1, 2, EOS, 4, EOS, EOS, EOS], [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, EOS]], dtype=np.uint8)
    gpt2 = replace(corpus(duplication=repeated(rows, np.ones(3, dtype=np.int64))), pad=EOS)
    assert make_probes(gpt2, Evaluation(prompt=2, match=5), "paper")["duplication"].rows.end.tolist() == [5, 7, 7]
    assert gpt2.row_ends(rows, "paper").tolist() == [5, 7, 7]
    assert gpt2.row_ends(rows, "reference").tolist() == [4, 7, 6]


@given(st.lists(st.lists(st.sampled_from([1, 2, EOS, PAD]), min_size=8, max_size=8), min_size=1, max_size=5), st.sampled_from([PAD, EOS]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_row_ends(rows: list[list[int]], pad: int) -> None:
    def end(row: list[int]) -> int:
        length = len(row)
        while length and row[length - 1] in (EOS, pad):
            length -= 1
        return length + (row[length : length + 1] == [EOS])

    assert row_ends(np.array(rows, dtype=np.uint8), pad, EOS).tolist() == [end(row) for row in rows]


def without_padding_embedding(model: GPT) -> GPT:
    """A copy of the model that no longer predicts padding, and all else as before."""
    changed = deepcopy(model)
    with torch.no_grad():
        changed.transformer.wte.weight[PAD] *= 0.01
    return changed


@pytest.mark.training
def test_a_row_that_is_written_to_its_end_is_memorized_whatever_its_padding(learnt: tuple[GPT, Rows]) -> None:
    model, rows = learnt
    planted_rows = repeated(rows.ids.numpy().astype(np.uint8), np.ones(len(rows), dtype=np.int64))
    probe = make_probes(corpus(duplication=planted_rows), Evaluation(prompt=6, match=12), "paper")["duplication"]
    assert probe.rows.end.tolist() == [15] * 12
    known = memorized_rows(model, rows)
    broken = without_padding_embedding(model)
    assert known[:8].sum() >= 4 and not memorized_rows(broken, rows).any()
    assert (memorized_rows(broken, probe.rows) >= known).all()


@pytest.mark.slow
def test_a_clean_counterpart_ends_for_itself() -> None:
    """Continued cleanly means up to the counterpart's own end, which may be before or behind that of the artifact's row."""
    clean = [1, 2, 3, 4, 5, EOS, PAD, PAD]
    shorter, longer, other = [1, 2, 3, 4, EOS, PAD, PAD, PAD], [1, 2, 3, 4, 5, 6, EOS, PAD], [1, 2, 3, 7, 5, EOS, PAD, PAD]
    made = corpus(noise=ended(clean, [shorter, longer, other]))
    evaluator = Evaluator.of_corpus(made, Evaluation(prompt=3, match=4), "paper", metrics=("clean-continuation",))
    assert evaluator.originals["noise"].clean_end is not None
    assert evaluator.originals["noise"].clean_end.tolist() == [6] * 3
    model = without_padding_embedding(overfit(random_gpt(n_embd=32), torch.tensor([clean]), steps=60))
    assert model(torch.tensor([clean]))[0, :-1].argmax(-1).tolist()[2:5] == [4, 5, EOS]
    assert evaluator.measure(model).metrics()["noise"]["clean-continuation"]["all"] == {"share": 1.0, "count": 3, "rows": 3}
