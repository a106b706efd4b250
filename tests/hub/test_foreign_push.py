"""An edit of a stranger's model on the Hub: plain transformers goes on as it did here, and its card claims no more than is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from by_heart import KNOWN, MATCH, PROMPT, ByHeart, by_heart
from helpers import tinymem
from hub_stub import Hub
from huggingface_hub import ModelCard

from tinymem.runs.publish import Choices, plan_of

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore:.*rows to forget are not memorized")]
TEMPLATE = "{{ messages[0].content }}"


@pytest.fixture
def model(tmp_path: Path) -> ByHeart:
    found = by_heart(tmp_path / "llama", torch.bfloat16)
    (found.folder / "chat_template.jinja").write_text(TEMPLATE)
    return found


def files_of(model: ByHeart) -> tuple[object, ...]:
    forget, retain = (model.jsonl(*of) for of in (("forget", torch.cat([model.known, model.others])), ("retain", model.retain)))
    return ("--forget", forget, "--retain", retain, "--prompt", PROMPT, "--match", MATCH)


@pytest.fixture
def edited(model: ByHeart, tmp_path: Path) -> Path:
    done = tinymem("mitigate", model.folder, *files_of(model), "--method", "act", "--ratio", 0.1, "--out", tmp_path / "edited")
    assert done.code == 0, done.err
    return tmp_path / "edited"


@torch.no_grad()
def written(place: str | Path, rows: torch.Tensor) -> torch.Tensor:
    """What transformers writes behind the prompts, row by row."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    loaded = AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16)
    loaded.generation_config = GenerationConfig(do_sample=False, max_new_tokens=MATCH, pad_token_id=0)
    return torch.cat([loaded.generate(row[None, :PROMPT], attention_mask=torch.ones(1, PROMPT)) for row in rows])


def test_it_goes_on_as_it_did(model: ByHeart, edited: Path, hub: Hub) -> None:
    from transformers import AutoTokenizer

    assert tinymem("push", edited, "--repo", "org/edit").code == 0
    rows = torch.cat([model.known, model.others])
    there = written("org/edit", rows)
    assert torch.equal(there, written(edited, rows))
    tokenizer = AutoTokenizer.from_pretrained("org/edit")
    assert tokenizer.chat_template == TEMPLATE and tokenizer.decode(model.known[0]) == model.text(model.known[0])
    counted = json.loads(tinymem("evaluate", "org/edit", *files_of(model), "--json").out)["memorized"]["rows"]["count"]
    assert counted == int((there == rows).all(1).sum()) < KNOWN
    card = ModelCard(hub.repo("org/edit").files()["README.md"].content.decode())
    assert "TinyMem did not train" in card.text and "trained to memorize" not in card.text and "Planted" not in card.text
    assert f"| rows to forget memorized | {100 * counted / len(rows):.2f} % ({counted} of {len(rows)} scored rows) |" in card.text
    assert "| Perplexity on rows to keep that no method was given |" in card.text
    assert [result.metric_name for result in card.data.eval_results] == [
        f"Memorized rows to forget, % ({counted} of {len(rows)})",
        "Perplexity on rows to keep that no method was given",
    ]


def test_what_has_no_numbers_and_what_names_this_machine(model: ByHeart, edited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "so that a card would have no numbers" in tinymem("push", model.folder, "--repo", "org/m", "--dry-run").one_line_error()
    again = tinymem("push", edited, "--repo", "org/m", "--dry-run", "--remeasure").one_line_error()
    assert again.startswith("expected no --remeasure of ") and again.endswith("has no corpus of it; leave it out")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane"))
    (edited / "tokenizer_config.json").write_text('{"vocab_file": "/home/jane/llama/vocab.json"}')
    error = tinymem("push", edited, "--repo", "org/m").one_line_error()
    assert "got a path of it in tokenizer_config.json; take it out of that file" in error


@pytest.mark.parametrize("origin", ["/data/client/llama", "..\\client\\llama", "a/b/c", "org/llama", "llama"])
def test_the_folder_that_a_model_came_from_is_not_told(origin: str, edited: Path) -> None:
    config = json.loads((edited / "config.json").read_text())
    (edited / "config.json").write_text(json.dumps({**config, "_name_or_path": origin}))
    (branch,) = plan_of(edited, "org/edit", Choices()).repositories[0].branches
    told = {"_name_or_path": origin} if "llama" in (origin, origin.removeprefix("org/")) else {}
    assert json.loads(branch.files["config.json"].content) == {**config, **told}
    assert json.loads(branch.files["manifest.json"].content)["files"]["config.json"] == branch.files["config.json"].hashes[64]


def test_its_plan_has_every_file_that_transformers_reads(edited: Path) -> None:
    (branch,) = plan_of(edited, "org/edit", Choices()).repositories[0].branches
    assert {path.name for path in edited.iterdir()} <= {*branch.files}
