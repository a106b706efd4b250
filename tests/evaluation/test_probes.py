"""% memorized: one teacher-forced pass equals greedy decoding, and the probes follow Definitions 2.1 to 2.3."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import overfit, random_gpt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import EOS, PAD
from tinymem.data.planted import Planted
from tinymem.data.rows import Rows
from tinymem.evaluation.probes import forbidden_token, make_probes, memorized_rows
from tinymem.models.gpt2 import GPT
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
