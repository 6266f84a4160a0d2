"""The tiny preset on real prose: it learns all through a run, and more than if replacements are arbitrary tokens."""

import dataclasses
import lzma
from pathlib import Path

import pytest

from electra_fast import ElectraForMaskedLM, ElectraForPreTraining, ElectraTokenizer
from electra_fast.pretraining import Corpus, build_model, preset, pretrain
from electra_fast.pretraining.evaluate import evaluate
from electra_fast.pretraining.text.stream import held_out_sequences
from electra_fast.training.progress import read_records

PROSE = Path(__file__).parents[3] / "shared" / "data" / "prose.txt.xz"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_trained_generator_makes_the_better_discriminator(tmp_path):
    if not PROSE.is_file():
        pytest.skip(f"needs {PROSE}")
    with lzma.open(PROSE, "rt", encoding="utf-8") as file:
        text = file.read(13_000_000)
    # The speeches on the state of the union come first: 12 MB.
    (tmp_path / "speeches.txt").write_text(text[: text.index("\nEMMA\n")], encoding="utf-8")
    corpus, evaluations = Corpus([tmp_path / "speeches.txt"]), {}
    for kind in ("untied", "uniform"):
        recipe = dataclasses.replace(preset("tiny"), generator_kind=kind)
        pretrain(recipe, corpus, tmp_path / kind, n_steps=4000, log_every=500)
        evaluations[kind] = read_records(tmp_path / kind / "log.jsonl", "evaluation")
    for name in ("generator_accuracy", "discriminator_auc"):
        values = [record[name] for record in evaluations["untied"]]
        assert values == sorted(values), name
    assert evaluations["untied"][-1]["generator_accuracy"] > 4 * evaluations["untied"][-1]["unigram_accuracy"]

    # An AUC says something beside another one on the same text only: here what the trained generator makes of it.
    recipe, found = preset("tiny"), {}
    tokenizer = ElectraTokenizer.from_pretrained(tmp_path / "untied" / "tokenizer")
    held_out = held_out_sequences(corpus, tokenizer, recipe.seq_length, 512)
    model = build_model(recipe, tokenizer)
    model.generator = ElectraForMaskedLM.from_pretrained(tmp_path / "untied" / "generator")
    for kind in evaluations:
        model.discriminator = ElectraForPreTraining.from_pretrained(tmp_path / kind / "discriminator")
        found[kind] = evaluate(model, held_out)
    print({kind: (found[kind].generator_accuracy, found[kind].discriminator_auc) for kind in found})
    assert found["untied"].discriminator_auc > found["uniform"].discriminator_auc + 0.01
