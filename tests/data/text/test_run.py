# ruff: noqa: F401, F811 (fixtures are imported by name)
"""A text recipe from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from data_text import cache, folder, plain_ids, tokenizer, words, write_parquet

from tinymem.errors import UserError
from tinymem.evaluation.exposure import exposures
from tinymem.recipe.recipe import load_recipe
from tinymem.runs.pipeline import run

RUN = """
name: tiny-wiki
data: {{kind: wiki, source: {source}, tokenizer: {tokenizer}, row_tokens: 20}}
artifacts:
  - {{kind: noise, rows: 12, copies: [1, 10]}}
  - {{kind: duplication, rows: 8, copies: [1, 10]}}
  - {{kind: canary, rows: 2, length: 2, template: "{{index}}: {{secret}}"}}
model: {{n_layer: 1, n_embd: 16, n_head: 2}}
training: {{epochs: 1}}
evaluation: {{prompt: 6, match: 6}}
mitigation: {{methods: [finetune-clean: {{epochs: 1}}]}}
"""


@pytest.mark.processes
@pytest.mark.training
def test_a_text_recipe_trains_mitigates_and_reports(folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RUN.format(source=folder, tokenizer=tokenizer))
    made = run(load_recipe(tmp_path / "r.yaml"), runs=tmp_path / "runs", device="cpu")
    assert {row["performance_metric"] for row in made.rows} == {"perplexity"}
    assert [row["artifact"] for row in made.rows] == ["noise", "duplication", "canary"]
    duplication = made.rows[1]
    assert {c: s["rows"] for c, s in duplication["memorized_by_copies_before"].items()} == {"1": 4, "10": 4}
    assert (made.path / "report.html").is_file()
    model, corpus = made.model(), made.corpus()
    assert (model.config.vocab_size, model.config.eos_token_id) == (400, 0)
    found = exposures(model, corpus)
    assert len(found) == 2 and all(e.exact and 1 <= e.rank <= e.ranked == 100 for e in found)
    tokens = transformers.AutoTokenizer.from_pretrained(made.checkpoint)
    assert tokens(words(1, 5)[1])["input_ids"] == plain_ids(tokenizer, [words(1, 5)[1]])
    write_parquet(folder / "train-00000-of-00001.parquet", words(301, 1))
    with pytest.raises(UserError, match="has changed since"):
        run(load_recipe(tmp_path / "r.yaml"), runs=tmp_path / "runs", device="cpu")
