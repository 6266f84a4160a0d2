"""The model card: what the Hub reads of it, what a person reads, and that its examples run."""

import contextlib
import io
import json
import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from texts import documents

from electra_fast.pretraining.build import build_model
from electra_fast.pretraining.evaluate import Evaluation
from electra_fast.pretraining.model_card import model_card, write_model_card
from electra_fast.pretraining.recipes import preset
from electra_fast.pretraining.run import new_tokenizer

RECIPE = replace(preset("tiny"), num_hidden_layers=1)
EVALUATION = Evaluation(
    n_tokens=100,
    n_masked=15,
    unigram_loss=6.0,
    unigram_accuracy=0.04,
    generator_loss=5.12345,
    generator_accuracy=0.21,
    generator_sampled_accuracy=0.1,
    discriminator_loss=0.335,
    discriminator_auc=0.8061,
    discriminator_accuracy=0.87,
    discriminator_precision=None,
    discriminator_recall=0.0,
    replaced_share=0.16,
    discriminator_similarity=0.31,
)
RUN = {"kind": "run", "recipe": {"name": "tiny"}, "seed": 3, "versions": {"torch": "2.13"}}
DATA = {"fingerprint": "0123abcd", "sources": ["a|b.txt"]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("card")
    tokenizer = new_tokenizer(documents(), RECIPE)
    model = build_model(RECIPE, tokenizer)
    model.save_pretrained(out)
    (out / "run.png").write_bytes(b"picture")
    for network in ("generator", "discriminator"):
        tokenizer.save_pretrained(out / network)
        options = {"path": str(out / network), "license": "cc-by-4.0", "language": "en", "plot": out / "run.png"}
        write_model_card(out / network, network, RECIPE, DATA, EVALUATION, RUN, **options)
    return out


def test_the_hub_reads_the_header(directory):
    card = ModelCard.load(directory / "generator" / "README.md").data
    assert (card.license, card.language, card.pipeline_tag) == ("cc-by-4.0", "en", "fill-mask")
    assert card.library_name == "transformers"
    assert {"electra", "electra_fast", "electra-generator"} <= set(card.tags)
    assert ModelCard.load(directory / "discriminator" / "README.md").data.pipeline_tag is None


def test_without_a_license_none_is_claimed():
    header = model_card("generator", RECIPE, DATA, EVALUATION, RUN).split("---")[1]
    assert "license" not in header
    assert "language" not in header


def test_recipe_data_and_metrics_are_in_it(directory):
    text = (directory / "discriminator" / "README.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", text, flags=re.MULTILINE))
    assert rows["generator_loss"] == "5.123"
    assert rows["discriminator_auc"] == "0.8061"
    assert "discriminator_precision" not in rows
    assert rows["num_hidden_layers"] == "1"
    assert rows["generator_dropout"] == "none"
    assert rows["fingerprint"] == "0123abcd"
    assert rows["sources"] == r'["a\|b.txt"]'
    assert (rows["seed"], json.loads(rows["versions"])) == ("3", {"torch": "2.13"})
    assert "![Losses, accuracy and AUC over the steps](training.png)" in text


def test_the_picture_lies_beside_it_and_nothing_else(directory):
    for network in ("generator", "discriminator"):
        assert (directory / network / "training.png").read_bytes() == b"picture"
        assert not list((directory / network).glob("*.tmp"))
    assert "training.png" not in model_card("generator", RECIPE, DATA, EVALUATION, RUN)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_its_examples_run_and_agree(network, directory):
    pytest.importorskip("transformers")
    text = (directory / network / "README.md").read_text()
    outputs = []
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "README.md", "exec"), {})
        outputs.append(printed.getvalue())
    with_transformers, with_electra_fast = outputs
    assert with_transformers == with_electra_fast
    assert with_transformers.startswith("[")
