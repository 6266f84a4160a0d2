"""The small model that comes with the package, and how it is made from a run."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from electra_fast import ElectraForMaskedLM, ElectraForPreTraining, ElectraTokenizer, bundled
from electra_fast.cli import bundle
from electra_fast.cli.main import main
from electra_fast.inference.detect import detect, fill_mask
from electra_fast.pretraining import Corpus, preset, pretrain


def test_it_is_small_and_complete():
    files = [path for path in bundled.DIRECTORY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    for network, own in (("generator", {"vocab.txt"}), ("discriminator", {"tokenizer.json", "training.png"})):
        names = {path.name for path in files if path.parent.name == network}
        assert names == {"config.json", "model.safetensors", "tokenizer_config.json", "README.md"} | own
        card = (bundled.bundled(network) / "README.md").read_text(encoding="utf-8")
        for words in ("WordNet", "CC BY-SA", "public domain", "Brown", "discriminator_auc", "seq_length"):
            assert words in card


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ("The president been the United States signed the bill.", "been"),
        ("The history of shall Roman empire is long.", "shall"),
        ("She was a member of very family.", "very"),
    ],
)
def test_it_finds_the_word_that_does_not_belong(text, odd):
    path = bundled.bundled("discriminator")
    model, tokenizer = ElectraForPreTraining.from_pretrained(path), ElectraTokenizer.from_pretrained(path)
    (found,) = detect(model, tokenizer, [text])
    assert [token for token, replaced in zip(found.tokens, found.replaced, strict=True) if replaced] == [odd]


def test_it_finds_wrong_words_in_sentences_better_than_chance():
    """Of words that are as frequent as the right ones, at a threshold that marks 1 in 20 of the right ones."""
    with open(Path(__file__).with_name("inference") / "wrong_words.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    path = bundled.bundled("discriminator")
    model, tokenizer = ElectraForPreTraining.from_pretrained(path), ElectraTokenizer.from_pretrained(path)
    wrong, right = [], []
    for row, found in zip(rows, detect(model, tokenizer, [row["sentence"] for row in rows]), strict=True):
        for word in found.words:
            (wrong if word.text == row["wrong"] else right).append(word.probability)
    assert len(wrong) == 200
    threshold = torch.tensor(right).quantile(0.95)
    assert (torch.tensor(wrong) > threshold).float().mean() >= 0.5


def test_it_fills_a_mask():
    path = bundled.bundled("generator")
    model, tokenizer = ElectraForMaskedLM.from_pretrained(path), ElectraTokenizer.from_pretrained(path)
    (filling,) = fill_mask(model, tokenizer, ["He was one of the [MASK] of the United States."], top_k=5)
    assert all(token.isalpha() for token, _ in filling.masks[0])


def test_both_networks_have_one_tokenizer():
    backends = [
        ElectraTokenizer.from_pretrained(bundled.bundled(n)).backend_tokenizer for n in ("generator", "discriminator")
    ]
    assert backends[0].to_str() == backends[1].to_str()


def test_transformers_loads_it():
    transformers = pytest.importorskip("transformers")
    for network, theirs, ours in (
        ("discriminator", transformers.AutoModelForPreTraining, ElectraForPreTraining),
        ("generator", transformers.AutoModelForMaskedLM, ElectraForMaskedLM),
    ):
        path = bundled.bundled(network)
        ids = torch.tensor([ElectraTokenizer.from_pretrained(path)("A short text")["input_ids"]])
        with torch.no_grad():
            expected, got = (c.from_pretrained(path).eval()(ids).logits for c in (theirs, ours))
        assert got.dtype == expected.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("command", [["detect", "A short text"], ["fill-mask", "A [MASK] text"]])
def test_commands_need_no_model(command, capsys):
    assert main(command) == 0
    assert "text" in capsys.readouterr().out


def test_it_is_made_of_a_run(tmp_path, monkeypatch, capsys):
    text = "\n\n".join(f"the {word} of number {i} is a text" for i in range(400) for word in ("end", "name"))
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    pretrain(preset("tiny"), Corpus([tmp_path / "text.txt"]), tmp_path / "run", n_steps=2, log_every=1)
    monkeypatch.setattr(bundle, "DIRECTORY", tmp_path / "bundled_model")
    table = "package\ttext\tlicence\tdocuments\tmegabytes\npypi:x\ttales\tpublic domain\t3\t1.5\n"
    (tmp_path / "sources.tsv").write_text(table, encoding="utf-8")
    (tmp_path / "figures.json").write_text('{"odd_words": {"recall": 0.5}}', encoding="utf-8")
    monkeypatch.setattr(
        "sys.argv", ["bundled", *(str(tmp_path / name) for name in ("run", "sources.tsv", "figures.json"))]
    )
    assert bundle.main() == 0
    for network in ("generator", "discriminator"):
        path = tmp_path / "bundled_model" / network
        weights = load_file(path / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
        assert json.loads((path / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"
        card = (path / "README.md").read_text(encoding="utf-8")
        for line in (
            "| tales (pypi:x) | public domain, 1.5 MB |",
            "| recall | 0.5 |",
            "| n_steps | 2 from step 0 on |",
        ):
            assert line in card


def test_a_run_that_is_not_done_is_refused(tmp_path, monkeypatch, capsys):
    for name, content in (("sources.tsv", "text\tpackage\tlicence\tmegabytes\n"), ("figures.json", "{}")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.setattr(
        "sys.argv", ["bundled", *(str(tmp_path / name) for name in ("", "sources.tsv", "figures.json"))]
    )
    assert bundle.main() == 2
    assert "must be a finished run" in capsys.readouterr().err
