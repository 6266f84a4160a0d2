"""Pre-training that goes on from checkpoints: of an earlier run, of transformers' layout, with more entries."""

import dataclasses
import warnings
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from texts import documents

from electra_fast import ElectraForMaskedLM, ElectraForPreTraining, ElectraTokenizer
from electra_fast.cli.main import main
from electra_fast.model.packing import PackedBatch, cu_seqlens_of
from electra_fast.pretraining import build_model, parameter_groups, preset
from electra_fast.pretraining.continued import fitted_recipe, load_pretrained, pretrained_tokenizer
from electra_fast.pretraining.extend_vocab import extended_tokenizer
from electra_fast.pretraining.text.vocab import train_vocab

BERT_TINY = Path(__file__).resolve().parents[3] / "shared" / "data" / "bert-tiny"
RECIPE = dataclasses.replace(
    preset("tiny"),
    hidden_size=32,
    num_attention_heads=2,
    embedding_size=16,
    num_hidden_layers=2,
    generator_size=0.5,
    generator_layers=1.0,
    neighbour_heads=False,
    seq_length=32,
)
# Another recipe, of shapes that no checkpoint here has.
OTHER = dataclasses.replace(RECIPE, hidden_size=64, num_attention_heads=4, embedding_size=24, num_hidden_layers=3)
BODY = "electra.encoder.layer.1.output.dense.weight"
TABLE = "electra.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def tokenizer():
    vocab = train_vocab(documents(), 150)
    return ElectraTokenizer(vocab={token: index for index, token in enumerate(vocab)}, model_max_length=64)


def build(recipe, tokenizer, seed=0):
    torch.manual_seed(seed)
    return build_model(recipe, tokenizer, "torch")


def trained(recipe, tokenizer, seed=0):
    """A model whose every parameter is its own, as training would make it."""
    model = build(recipe, tokenizer, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save(model, tokenizer, directory):
    model.save_pretrained(directory)
    for name in model.hub_networks:
        tokenizer.save_pretrained(directory / name)
    return {name: directory / name for name in model.hub_networks}


def batch(tokenizer):
    rows = [tokenizer(text, truncation=True, max_length=32)["input_ids"] for text in documents(4)]
    lengths = [len(row) for row in rows]
    ids = torch.tensor([index for row in rows for index in row])
    return ids, PackedBatch.from_cu_seqlens(1, sum(lengths), cu_seqlens_of(lengths), max(lengths))


def mean_of_pieces(word, tokenizer, table):
    pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word))
    assert len(pieces) > 1
    return table[pieces].mean(0)


def losses(model, tokenizer):
    output = model.eval()(*batch(tokenizer), random=torch.Generator().manual_seed(3))
    return [loss for loss in (output.generator_loss, output.discriminator_loss) if loss is not None]


@pytest.fixture(scope="module")
def earlier(tokenizer, tmp_path_factory):
    model = trained(RECIPE, tokenizer)
    return model, save(model, tokenizer, tmp_path_factory.mktemp("earlier"))


OPTIONS = {
    "electra": {},
    "gdes": dict(embedding_sharing="gdes"),
    "nes": dict(embedding_sharing="nes", generator_embedding_size=8),
    "tied": dict(generator_kind="tied", generator_size=1),
    "uniform": dict(generator_kind="uniform"),
    "mlm": dict(objective="mlm"),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_run_goes_on_where_its_networks_were_left(tokenizer, tmp_path, kind):
    model = trained(dataclasses.replace(RECIPE, **OPTIONS[kind]), tokenizer)
    sources = save(model, tokenizer, tmp_path)
    choices = {name: value for name, value in OPTIONS[kind].items() if name != "generator_embedding_size"}
    recipe = fitted_recipe(OTHER, **sources, changes=choices)
    again = build(recipe, tokenizer, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pretrained(again, recipe, pretrained_tokenizer(**sources), **sources)
    torch.testing.assert_close(losses(again, tokenizer), losses(model, tokenizer), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_what_transformers_wrote_gives_its_outputs(tokenizer, tmp_path, safe):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    common = dict(vocab_size=len(tokenizer), embedding_size=16, num_hidden_layers=2, max_position_embeddings=64)
    theirs = {
        "generator": transformers.ElectraForMaskedLM(
            transformers.ElectraConfig(**common, hidden_size=16, num_attention_heads=1, intermediate_size=64)
        ),
        "discriminator": transformers.ElectraForPreTraining(
            transformers.ElectraConfig(**common, hidden_size=32, num_attention_heads=2, intermediate_size=128)
        ),
    }
    # As on the Hub, where both halves hold the tables that they were trained with.
    theirs["generator"].electra.embeddings.load_state_dict(theirs["discriminator"].electra.embeddings.state_dict())
    sources = {name: tmp_path / name for name in theirs}
    for name, network in theirs.items():
        torch.nn.init.normal_(list(network.parameters())[-1])  # biases are zeros as yet
        network.save_pretrained(sources[name])
        tokenizer.save_pretrained(sources[name])
        if not safe:
            (sources[name] / "model.safetensors").unlink()
            torch.save(network.state_dict(), sources[name] / "pytorch_model.bin")
    recipe = fitted_recipe(OTHER, **sources)
    model = build(recipe, tokenizer, seed=1)
    load_pretrained(model, recipe, tokenizer, **sources)
    inputs = tokenizer(documents(3), padding=True, truncation=True, max_length=32, return_tensors="pt")
    is_real = inputs["attention_mask"].bool()
    for name, network in theirs.items():
        with torch.no_grad():
            expected = network.eval()(**inputs).logits[is_real]
            ours = getattr(model, name).eval()(**inputs).logits[is_real]
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_one_checkpoint_leaves_the_other_network_fresh(tokenizer, earlier):
    old, sources = earlier
    recipe = fitted_recipe(dataclasses.replace(OTHER, generator_size=0.25), discriminator=sources["discriminator"])
    assert (recipe.hidden_size, recipe.generator_size) == (32, 0.25)
    model, fresh = build(recipe, tokenizer), build(recipe, tokenizer)
    load_pretrained(model, recipe, tokenizer, discriminator=sources["discriminator"])
    assert torch.equal(model.discriminator.state_dict()[BODY], old.discriminator.state_dict()[BODY])
    assert torch.equal(model.generator.state_dict()[BODY], fresh.generator.state_dict()[BODY])
    assert torch.equal(model.generator.state_dict()[TABLE], old.discriminator.state_dict()[TABLE])

    recipe = fitted_recipe(OTHER, generator=sources["generator"])
    assert (recipe.hidden_size, recipe.num_hidden_layers, recipe.embedding_size) == (64, 3, 16)
    model, fresh = build(recipe, tokenizer), build(recipe, tokenizer)
    load_pretrained(model, recipe, tokenizer, generator=sources["generator"])
    assert torch.equal(model.generator.state_dict()[BODY], old.generator.state_dict()[BODY])
    assert torch.equal(model.discriminator.state_dict()[BODY], fresh.discriminator.state_dict()[BODY])


def test_with_gdes_a_fresh_generator_has_the_discriminators_embeddings(tokenizer, earlier):
    old, sources = earlier
    source = sources["discriminator"]
    recipe = fitted_recipe(OTHER, discriminator=source, changes={"embedding_sharing": "gdes"})
    model = build(recipe, tokenizer, seed=1)
    load_pretrained(model, recipe, tokenizer, discriminator=source)
    expected = old.discriminator.electra.embeddings.word_embeddings.weight
    assert torch.equal(model.generator.electra.embeddings.word_embeddings.weight, expected)
    difference = model.discriminator.electra.embeddings.word_embeddings.parametrizations.weight.original
    assert torch.count_nonzero(difference) == 0


def test_where_shared_tables_differ_the_discriminators_are_taken_with_a_warning(tokenizer, earlier, tmp_path):
    old, sources = earlier
    other = save(trained(RECIPE, tokenizer, seed=1), tokenizer, tmp_path)
    mixed = {"generator": other["generator"], "discriminator": sources["discriminator"]}
    model = build(RECIPE, tokenizer)
    with pytest.warns(UserWarning, match=r"the discriminator's is taken; embedding_sharing gdes or nes keeps both"):
        load_pretrained(model, RECIPE, tokenizer, **mixed)
    assert torch.equal(model.generator.state_dict()[TABLE], old.discriminator.state_dict()[TABLE])
    gdes = dataclasses.replace(RECIPE, embedding_sharing="gdes")
    model = build(gdes, tokenizer)
    load_pretrained(model, gdes, tokenizer, **mixed)
    expected = ElectraForMaskedLM.from_pretrained(other["generator"]).state_dict()[TABLE]
    assert torch.equal(model.generator.state_dict()[TABLE], expected)


def test_another_shape_is_refused_with_the_options_that_fit(tokenizer, earlier):
    _, sources = earlier
    with pytest.raises(ValueError) as error:
        load_pretrained(build(OTHER, tokenizer), OTHER, tokenizer, **sources)
    message = str(error.value)
    assert "hidden_size 32 in the discriminator's checkpoint and 64 in the recipe" in message
    assert "num_hidden_layers 2 in the generator's checkpoint and 3 in the recipe" in message
    hint = message.split("these fit: --set ")[1]
    assert hint == "num_hidden_layers=2 hidden_size=32 num_attention_heads=2 embedding_size=16"
    with pytest.raises(ValueError, match="these fit: --set hidden_size=32"):
        fitted_recipe(RECIPE, **sources, changes={"hidden_size": 48})


def test_names_that_are_no_directories_are_asked_of_the_hub(tokenizer, earlier, monkeypatch):
    old, sources = earlier

    def download(repo, filename, **options):
        path = sources[repo.removeprefix("me/")] / filename
        if not path.is_file():
            raise LocalEntryNotFoundError(filename)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("electra_fast.hub.files._silence", lambda: None)  # it answers
    repos = {name: f"me/{name}" for name in sources}
    recipe = fitted_recipe(OTHER, **repos)
    model = build(recipe, pretrained_tokenizer(**repos), seed=1)
    load_pretrained(model, recipe, pretrained_tokenizer(**repos), **repos)
    torch.testing.assert_close(losses(model, tokenizer), losses(old, tokenizer), atol=1e-6, rtol=1e-6)


def test_a_network_that_the_recipe_has_not_is_refused(earlier):
    _, sources = earlier
    electric = {"objective": "electric", "temperature": 1.0}
    uniform, mlm = {"generator_kind": "uniform"}, {"objective": "mlm"}
    for name, changes in (("generator", uniform), ("discriminator", mlm), ("generator", electric)):
        with pytest.raises(ValueError, match=f"a {name}'s checkpoint needs"):
            fitted_recipe(RECIPE, **{name: sources[name]}, changes=changes)


def test_a_head_may_be_missing_but_no_more(tokenizer, earlier, tmp_path):
    old, _ = earlier
    state, config = old.discriminator.state_dict(), old.discriminator.config
    body = {key: value for key, value in state.items() if key.startswith("electra.")}
    network = ElectraForPreTraining(config)
    for name, tensors in (("body", body), ("less", {k: v for k, v in body.items() if k != BODY})):
        network.save_pretrained(tmp_path / name, state_dict=tensors)
        tokenizer.save_pretrained(tmp_path / name)
    model = build(RECIPE, tokenizer)
    with pytest.warns(UserWarning, match="newly initialised, train before use: discriminator_predictions"):
        load_pretrained(model, RECIPE, tokenizer, discriminator=tmp_path / "body")
    assert torch.equal(model.discriminator.state_dict()[BODY], state[BODY])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=f"all of a discriminator but its head.* {BODY}"):
        load_pretrained(model, RECIPE, tokenizer, discriminator=tmp_path / "less")


def test_an_untied_output_table_is_refused(tokenizer, earlier, tmp_path):
    old, _ = earlier
    state = dict(old.generator.state_dict())
    state["generator_lm_head.weight"] = state["generator_lm_head.weight"] + 1
    network = ElectraForMaskedLM(old.generator.config)
    network.config.tie_word_embeddings = False
    network.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match="must have one table for input and output"):
        load_pretrained(build(RECIPE, tokenizer), RECIPE, tokenizer, generator=tmp_path)


def test_another_vocabulary_is_refused(tokenizer, earlier, tmp_path):
    old, sources = earlier
    first, second = tokenizer.convert_ids_to_tokens([60, 61])
    swapped = ElectraTokenizer(vocab={**tokenizer.get_vocab(), first: 61, second: 60}, model_max_length=64)
    with pytest.raises(ValueError, match=f"where '{first}' has id 60; got id 61"):
        load_pretrained(build(RECIPE, swapped), RECIPE, swapped, discriminator=sources["discriminator"])
    old.discriminator.save_pretrained(tmp_path)
    # Without a tokenizer the number of entries is all that can be compared.
    load_pretrained(build(RECIPE, tokenizer), RECIPE, tokenizer, discriminator=tmp_path)
    larger = extended_tokenizer(tokenizer, ["immunoglobulin " * 9], 5)
    with pytest.raises(ValueError, match=f"holds no tokenizer .*{len(larger)}, got {len(tokenizer)}"):
        load_pretrained(build(RECIPE, larger), RECIPE, larger, discriminator=tmp_path)


def test_entries_without_a_row_of_the_table_get_one(tokenizer, earlier, tmp_path):
    # Tokens were added to the tokenizer, and the table was left as it was.
    old, _ = earlier
    larger = extended_tokenizer(tokenizer, ["immunoglobulin " * 9], 1)
    old.discriminator.save_pretrained(tmp_path)
    larger.save_pretrained(tmp_path)
    model = build(RECIPE, larger)
    load_pretrained(model, RECIPE, larger, discriminator=tmp_path)
    rows, expected = model.discriminator.state_dict()[TABLE], old.discriminator.state_dict()[TABLE]
    assert torch.equal(rows[:-1], expected)
    torch.testing.assert_close(rows[-1], mean_of_pieces("immunoglobulin", tokenizer, expected))


def test_rows_of_the_table_without_an_entry_are_left_out(tokenizer, tmp_path):
    model = trained(RECIPE, tokenizer)
    expected = model.generator.state_dict()[TABLE].clone()
    for name in model.hub_networks:
        network = getattr(model, name)
        network.resize_token_embeddings(len(tokenizer) + 7)
        network.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    again = build(RECIPE, tokenizer, seed=1)
    load_pretrained(again, RECIPE, tokenizer, tmp_path / "generator", tmp_path / "discriminator")
    assert torch.equal(again.generator.state_dict()[TABLE], expected)


def test_a_larger_vocabulary_trains_and_loads_in_transformers(tokenizer, earlier, tmp_path):
    transformers = pytest.importorskip("transformers")
    old, sources = earlier
    text = "The immunoglobulins bind the electrode. " * 9
    larger, n_old = extended_tokenizer(tokenizer, [text], 3), len(tokenizer)
    model = build(RECIPE, larger, seed=1)
    load_pretrained(model, RECIPE, larger, **sources)
    for name in old.hub_networks:
        state, found = (getattr(each, name).state_dict() for each in (old, model))
        for key in ("generator_lm_head.bias", TABLE) if name == "generator" else (TABLE,):
            rows = found[key]
            assert len(rows) == len(larger) == n_old + 3
            assert torch.equal(rows[:n_old], state[key])
            index = larger.convert_tokens_to_ids("immunoglobulins")
            assert index >= n_old
            torch.testing.assert_close(rows[index], mean_of_pieces("immunoglobulins", tokenizer, state[key]))
        assert all(torch.equal(found[key], state[key]) for key in state if len(found[key]) == len(state[key]))

    optimizer = torch.optim.AdamW(parameter_groups(model, RECIPE), lr=1e-3)
    before = model.generator.state_dict()[TABLE].clone()
    for step in range(3):
        optimizer.zero_grad()
        loss = model.train()(*batch(larger), random=torch.Generator().manual_seed(step)).loss
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss) and not torch.equal(model.generator.state_dict()[TABLE], before)
    for name, directory in save(model, larger, tmp_path).items():
        auto = transformers.AutoModelForMaskedLM if name == "generator" else transformers.AutoModelForPreTraining
        theirs, info = auto.from_pretrained(directory, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert theirs.config.vocab_size == len(transformers.AutoTokenizer.from_pretrained(directory)) == len(larger)
        inputs = larger(text, truncation=True, max_length=32, return_tensors="pt")
        ours = getattr(model, name).eval()
        with torch.no_grad():
            torch.testing.assert_close(ours(**inputs).logits, theirs.eval()(**inputs).logits, atol=1e-5, rtol=1e-5)


def test_the_command_line_goes_on_from_a_run_with_a_larger_vocabulary(earlier, tmp_path):
    _, sources = earlier
    data, out = tmp_path / "text.txt", tmp_path / "out"
    data.write_text("\n".join([*documents(), "The immunoglobulins bind the electrode.\n" * 200]), encoding="utf-8")
    command = ["pretrain", "--preset", "tiny", "--data", str(data), "--out", str(out), "--device", "cpu"]
    command += ["--init-generator", str(sources["generator"]), "--init-discriminator", str(sources["discriminator"])]
    command += ["--new-entries", "2", "--steps", "2", "--log-every", "1", "--checkpoint-every", "1"]
    assert not main(command)
    for name, network in (("generator", ElectraForMaskedLM), ("discriminator", ElectraForPreTraining)):
        before, after = (network.from_pretrained(directory) for directory in (sources[name], out / name))
        assert after.config.hidden_size == before.config.hidden_size
        assert after.config.vocab_size == before.config.vocab_size + 2
        # So few updates change little.
        difference = after.state_dict()[BODY] - before.state_dict()[BODY]
        assert 0 < difference.abs().max() < 0.01
    assert "immunoglobulins" in ElectraTokenizer.from_pretrained(out / "generator").get_vocab()


@pytest.mark.skipif(not BERT_TINY.exists(), reason="real weights (shared/data/bert-tiny) are not on this machine")
def test_real_weights_without_a_head_make_a_discriminator():
    tokenizer = pretrained_tokenizer(discriminator=BERT_TINY)
    recipe = fitted_recipe(preset("tiny"), discriminator=BERT_TINY)
    larger = extended_tokenizer(tokenizer, ["immunoglobulins bind the electrode. " * 9], 5)
    model = build(recipe, larger)
    with pytest.warns(UserWarning, match="newly initialised, train before use: discriminator_predictions"):
        load_pretrained(model, recipe, larger, discriminator=BERT_TINY)
    with pytest.warns(UserWarning, match="newly initialised"):
        expected = ElectraForPreTraining.from_pretrained(BERT_TINY).electra
    inputs = tokenizer("The quick brown fox", return_tensors="pt")
    with torch.no_grad():
        found = model.discriminator.electra.eval()(**inputs).last_hidden_state
        torch.testing.assert_close(found, expected(**inputs).last_hidden_state, atol=1e-5, rtol=1e-5)
    rows, index = expected.embeddings.word_embeddings.weight, larger.convert_tokens_to_ids("immunoglobulins")
    assert index >= len(tokenizer)
    found = model.generator.state_dict()[TABLE][index]
    torch.testing.assert_close(found, mean_of_pieces("immunoglobulins", tokenizer, rows))
