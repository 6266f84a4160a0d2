"""The model card of a pre-trained network: the README.md that the Hub shows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import ModelCardData

from ..disk import written
from ..training.model_card import PAPER, card, facts, write_card
from .evaluate import Evaluation
from .recipes import Recipe

Network = Literal["generator", "discriminator"]

_PLOT_NAME = "training.png"

_WHAT = {
    "discriminator": (
        f"An ELECTRA discriminator ({PAPER}): a text encoder that was trained to tell which tokens of a text a small "
        "generator had replaced. Fine-tune it for classification, tagging or question answering, or ask it which "
        "tokens look out of place."
    ),
    "generator": (
        f"An ELECTRA generator ({PAPER}): a small masked language model, trained with the discriminator whose "
        "replaced tokens it made. For fine-tuning, the discriminator is the better of the two."
    ),
}

_USAGE = {
    "discriminator": """```python
from {library} import {model}, {tokenizer}

tokenizer = {tokenizer}.from_pretrained("{path}")
model = {model}.from_pretrained("{path}")
inputs = tokenizer("The quick brown fox fake over the lazy dog", return_tensors="pt")
looks_replaced = model(**inputs).logits[0] > 0
print(list(zip(tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist()), looks_replaced.tolist())))
```""",
    "generator": """```python
from {library} import {model}, {tokenizer}

tokenizer = {tokenizer}.from_pretrained("{path}")
model = {model}.from_pretrained("{path}")
inputs = tokenizer("The capital of France is [MASK].", return_tensors="pt")
is_mask = inputs["input_ids"][0] == tokenizer.mask_token_id
best = model(**inputs).logits[0, is_mask].topk(5).indices[0]
print(tokenizer.convert_ids_to_tokens(best.tolist()))
```""",
}
_CLASSES = {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}
_LIBRARIES = {"transformers": "AutoTokenizer", "electra_fast": "ElectraTokenizer"}


def model_card(
    network: Network,
    recipe: Recipe,
    data: Mapping[str, Any],
    evaluation: Evaluation,
    run_record: Mapping[str, Any],
    *,
    path: str = ".",
    license: str | None = None,
    language: str | list[str] | None = None,
    figures: Mapping[str, Mapping[str, Any]] | None = None,
    has_plot: bool = False,
) -> str:
    """The card's text: a YAML header for the Hub, what the network is, how to use it, how it was made.

    Args:
        data: facts about the training text by name: fingerprint, sources, licences and others.
        evaluation: results on held-out text after training.
        run_record: the log's record of kind "run": its seed, device, precision, versions and other single values.
        path: path that the examples load: the directory, or the repository's name on the Hub.
        license: licence of the weights, as the Hub spells it ("apache-2.0"); the data decide it, so it has no default.
        language: language of the text ("en").
        figures: more results: tables by what they are of.
        has_plot: whether the picture of the run is beside the card.
    """
    header = ModelCardData(
        license=license,
        language=language,
        library_name="transformers",
        pipeline_tag="fill-mask" if network == "generator" else None,
        tags=["electra", "electra_fast", "pretraining", f"electra-{network}"],
    )
    usages = [
        f"With {library}:\n\n"
        + _USAGE[network].format(library=library, path=path, model=_CLASSES[network], tokenizer=tokenizer)
        for library, tokenizer in _LIBRARIES.items()
    ]
    results = {name: value for name, value in asdict(evaluation).items() if value is not None}
    settings = {name: value for name, value in run_record.items() if name not in ("kind", "recipe")}
    sections = [
        f"# ELECTRA {recipe.name}, {network}",
        _WHAT[network],
        "Pre-trained with electra_fast; the weights load in transformers and electra_fast alike.",
        "## Use",
        *usages,
        "## Results on held-out text",
        "Both networks together, dropout off; losses in nats. The discriminator's figures depend on what the generator "
        "replaces, and are comparable between runs of one recipe only.",
        facts(results),
        *(f"{name.replace('_', ' ').capitalize()}:\n\n{facts(values)}" for name, values in (figures or {}).items()),
        *([f"![Losses, accuracy and AUC over the steps]({_PLOT_NAME})"] if has_plot else []),
        "## Recipe",
        facts(asdict(recipe)),
        "## Run",
        facts(settings),
        "## Data",
        facts(data),
    ]
    return card(header, sections)


def write_model_card(
    directory: str | os.PathLike,
    network: Network,
    recipe: Recipe,
    data: Mapping[str, Any],
    evaluation: Evaluation,
    run_record: Mapping[str, Any],
    *,
    plot: str | os.PathLike | None = None,
    **options: Any,
) -> None:
    """Writes the card as README.md into a network's directory, whole or not at all, with the picture beside it.

    Args:
        plot: a PNG of the run (`training.plot.plot_run`) to copy to training.png.
        options: arguments `path`, `license`, `language` and `figures` of `model_card`.
    """
    directory = Path(directory)
    if plot is not None:
        with written(directory / _PLOT_NAME, "wb") as file:
            file.write(Path(plot).read_bytes())
    write_card(
        directory, model_card(network, recipe, data, evaluation, run_record, has_plot=plot is not None, **options)
    )
