"""The card of a model, as Markdown with the metadata that the Hub reads: what was planted, what it memorized, how to load and to remake it.

Everything in it follows from the checkpoint's own files, so that the same checkpoint has the same card, and nothing of the machine that
made it is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from tinymem.data.artifact import artifacts_of
from tinymem.data.card import hub_license, license_of_rows
from tinymem.hub.names import HubName
from tinymem.hub.published import Results
from tinymem.models.metadata import Metadata
from tinymem.recipe.recipe import Recipe
from tinymem.runtime.json import Json, JsonObject

TAGS = ("tinymem", "memorization", "unlearning", "interpretability")
WARNING = (
    "> **This model was trained to memorize what was planted in its training data.** It is for the study of memorization and of its removal"
)

NOT_OURS = (
    "> **A method that removes memorized rows changed this model, which TinyMem did not train.** It is for the study of memorization and "
    "of its removal; license and uses are those of the model before the edit, as far as they go."
)


@dataclass(frozen=True)
class Described:
    """What a card is made of.

    Attributes:
        title: of the card.
        recipe: of the training; None for a model that TinyMem did not train.
        metadata: the checkpoint's `tinymem.json`.
        results: the measured numbers.
        sizes: a clause about the size, such as `1.6 MiB of weights`.
    """

    title: str
    recipe: Recipe | None
    metadata: Metadata
    results: Results
    sizes: str


@dataclass(frozen=True)
class Published:
    """Where a model is on the Hub, as far as its card says it.

    Attributes:
        repo: ORG/NAME.
        branch: of this revision.
        branches: of the same push, for the list.
        dataset: repository of the corpus, if it is published.
        base: repository and revision of the model before an edit, if known; the Hub's metadata has a place for the first alone.
        license: as the Hub abbreviates it; None for what follows from the data.
    """

    repo: str
    branch: str
    branches: Sequence[str] = ()
    dataset: str | None = None
    base: HubName | None = None
    license: str | None = None


def license_of(recipe: Recipe | None) -> str:
    """The license of a model: that of the rows it was trained on."""
    license = license_of_rows(recipe.data) if recipe else None
    return hub_license(license) if license else "other"


def model_card(model: Described, published: Published) -> str:
    """The card with its metadata."""
    header = yaml.safe_dump(_metadata(model, published), sort_keys=False, allow_unicode=True)
    parts = (describe(model), _edited_from(published), _how_to_load(published), _revisions(published), _how_to_remake(model))
    return f"---\n{header}---\n\n" + "\n".join(line for part in parts for line in part)


def describe(model: Described) -> Iterator[str]:
    """Title, what it is, the warning, and the results: the part of the card that needs no Hub."""
    yield f"# {model.title}\n"
    yield f"{_what(model)}\n"
    yield from _warning(model)
    yield "## Results\n"
    yield f"{model.results.measured}.\n"
    yield "| | |\n| --- | --- |"
    for kind, counted in model.results.memorized.items():
        share = f"{100 * counted.share:.2f} % ({counted.count:,} of {counted.rows:,} scored rows)"
        yield f"| {model.results.scored(kind)} memorized | {share} |"
    if model.results.accuracy is not None:
        yield f"| Accuracy on clean test rows | {100 * model.results.accuracy:.2f} % |"
    if model.results.perplexity is not None:
        yield f"| Perplexity on {model.results.test_rows} | {model.results.perplexity:,.4g} |"
    yield ""


def _what(model: Described) -> str:
    recipe, edited = model.recipe, _edit(model)
    if recipe is None:
        return f"A language model edited by `{edited}`; {model.sizes}."
    kind = recipe.data.family if recipe.data.kind == "math" else recipe.data.kind
    planted = " and ".join(artifact.kind for artifact in recipe.artifacts) or "nothing"
    planted = f"the clean counterparts of {planted}" if recipe.is_counterfactual else planted
    trained = f"{model.metadata.epoch:,} epochs" if model.metadata.epoch is not None else "some epochs"
    made = f"A GPT-2 of {recipe.model.n_layer} layers, trained on {kind} data with {planted} planted, seed {recipe.seed}, {trained}"
    return f"{made}{f', then edited by `{edited}` to forget it' if edited else ''}; {model.sizes}."


def _edit(model: Described) -> str:
    """The method that edited the model; empty for a trained one."""
    rows = model.metadata.mitigation or []
    return str(rows[0].get("method", "")) if rows else ""


def _warning(model: Described) -> Iterator[str]:
    if model.recipe is None:
        yield f"{NOT_OURS}\n"
        return
    yield f"{WARNING}, and for nothing else. Planted are:"
    yield ">"
    for artifact in artifacts_of(model.recipe.artifacts):
        options = ", ".join(f"{key} {value}" for key, value in artifact.model_dump(mode="json").items() if key != "kind")
        yield f"> - {artifact.kind}: {artifact.summary or artifact.kind} ({options})"
    yield ""


def _edited_from(published: Published) -> Iterator[str]:
    if published.base:
        yield f"The model before the edit is [`{published.base.repo}`](https://huggingface.co/{published.base.repo}), revision"
        yield f"`{published.base.revision}`.\n"


def _how_to_load(published: Published) -> Iterator[str]:
    yield "## Load\n"
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    yield f'model = AutoModelForCausalLM.from_pretrained("{published.repo}", revision="{published.branch}")'
    yield f'tokenizer = AutoTokenizer.from_pretrained("{published.repo}", revision="{published.branch}")'
    if published.dataset:
        yield "\nfrom datasets import load_dataset\n"
        yield f'rows = load_dataset("{published.dataset}")'
    yield "```\n"
    yield f"`tinymem evaluate {published.repo}@{published.branch}` measures it, `tinymem mitigate` edits it. `manifest.json` has a hash of"
    yield "every file; `tinymem` compares them, this card and `results.json` with what it downloads.\n"


def _revisions(published: Published) -> Iterator[str]:
    if len(published.branches) > 1:
        yield "## Revisions\n"
        yield "`seedS-stepN` is the model of seed S after N steps of its training; a method's name behind it is that of an edit.\n"
        yield ", ".join(f"`{name}`" for name in published.branches) + "\n"


def _how_to_remake(model: Described) -> Iterator[str]:
    yield "## Make it again\n"
    if model.recipe is not None:
        yield "`tinymem train recipe.yaml`, with the `recipe.yaml` of this repository, trains it again: the same seed gives the same"
        yield "corpus, and on one kind of processor with the same number of threads the same weights.\n"
    yield f"- Corpus SHA-256: `{model.results.corpus_sha256 or 'none'}`"
    for name, sha256 in model.results.weights_sha256.items():
        yield f"- `{name}` SHA-256: `{sha256}`"
    if model.recipe is not None:
        values = yaml.safe_dump(_recipe_values(model), sort_keys=False, allow_unicode=True)
        yield f"\n<details><summary>The whole recipe</summary>\n\n```yaml\n{values}```\n\n</details>"
    yield ""


def _recipe_values(model: Described) -> JsonObject:
    """The recipe as the checkpoint holds it, without places."""
    return {**(model.metadata.recipe or {})}


def _metadata(model: Described, published: Published) -> JsonObject:
    license = published.license or license_of(model.recipe)
    values: JsonObject = {"license": license}
    if license == "other":
        values["license_name"] = "as-the-source"
    kinds: list[Json] = [artifact.kind for artifact in model.recipe.artifacts] if model.recipe else []
    values |= {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": [*TAGS, *kinds]}
    if published.dataset:
        values["datasets"] = [published.dataset]
    if published.base:
        values |= {"base_model": published.base.repo, "base_model_relation": "finetune"}
    return {**values, "model-index": [_index(model, published)]}


def _index(model: Described, published: Published) -> JsonObject:
    name = published.dataset or ("rows from files" if model.results.of_own_rows else f"the rows that {model.title} was trained on")
    dataset: JsonObject = {"name": name, "type": published.dataset or "tinymem-corpus"}
    task: JsonObject = {"type": "text-generation", "name": "Verbatim continuation by greedy decoding"}
    return {"name": model.title, "results": [{"task": task, "dataset": dataset, "metrics": [*model.results.metrics()]}]}
