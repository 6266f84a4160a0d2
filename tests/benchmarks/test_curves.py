"""Losses beside transformers': both programs make the same updates from the same text and numbers."""

import json
from dataclasses import replace

import pytest
import torch
from electra_fast.benchmarks import OURS
from electra_fast.benchmarks.pretrain import curves
from electra_fast.benchmarks.pretrain.bench import numbered_tokenizer, text
from electra_fast.benchmarks.pretrain.curves import CONTROL, PEER, summary
from electra_fast.benchmarks.pretrain.peers import TransformersPretraining

from electra_fast.cli.main import main
from electra_fast.model.packing import PackedBatch
from electra_fast.pretraining.build import build_model
from electra_fast.pretraining.recipes import PRESETS, TINY

MICRO = replace(
    TINY,
    num_hidden_layers=2,
    hidden_size=32,
    num_attention_heads=2,
    embedding_size=16,
    generator_size=0.5,
    vocab_size=200,
    seq_length=24,
    batch_size=4,
    dropout=0.1,
    warmup_steps=2,
    n_steps=40,
)


@pytest.fixture
def argv(tmp_path, monkeypatch):
    """A call on text of a made-up language, without what follows."""
    vocab = numbered_tokenizer(MICRO).get_vocab()
    torch.manual_seed(0)
    numbers = torch.randint(10, (60, 40)).tolist()
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(f"word{i}" for i in line) for line in numbers))
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocab, key=vocab.get)))
    monkeypatch.setitem(PRESETS, "tiny", MICRO)
    paths = {name: str(tmp_path / name) for name in ("text.txt", "vocab.txt", "out")}
    options = ["--data", paths["text.txt"], "--vocab", paths["vocab.txt"], "--out", paths["out"]]
    return ["bench", "curves", "--preset", "tiny", *options]


@pytest.mark.parametrize("bias_correction", [False, True], ids=["uncorrected", "corrected"])
def test_both_make_the_same_updates(argv, tmp_path, capsys, monkeypatch, bias_correction):
    monkeypatch.setitem(PRESETS, "tiny", replace(MICRO, bias_correction=bias_correction))
    assert main([*argv, "--steps", "20"]) == 0
    records = [json.loads(line) for line in (tmp_path / "out" / "curves.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 21))
    for name in (PEER, CONTROL):
        for loss in ("generator", "discriminator"):
            found, expected = ([record[provider][loss] for record in records] for provider in (name, OURS))
            # A sample that rounding decides may differ, and moves the discriminator's loss.
            assert found == pytest.approx(expected, abs=1e-5 if loss == "generator" else 3e-3), (name, loss)
    losses = [record[OURS]["generator"] for record in records]
    assert losses[0] - losses[-1] > 0.05
    assert capsys.readouterr().out == summary(records) + "\n"
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_it_goes_on_where_it_stopped(argv, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert main([*argv, "--steps", "6"]) == 0
    whole = (out / "curves.jsonl").read_text()
    out.rename(tmp_path / "whole")
    assert main([*argv, "--steps", "3"]) == main([*argv, "--steps", "6"]) == 0
    assert (out / "curves.jsonl").read_text() == whole
    monkeypatch.setattr(curves.Curves, "update", lambda self: pytest.fail("nothing was left to do"))
    assert main([*argv, "--steps", "2"]) == 0


def test_mistakes_are_one_line(argv, capsys):
    assert main([*argv, "--steps", "2"]) == 0
    for more, message in (
        (("--steps", "2", "--batch-size", "2"), "holds a run of other settings"),
        (("--steps", "41"), "steps must be from 1 to the recipe's 40"),
        (("--steps", "0"), "steps must be from 1 to the recipe's 40"),
        (("--steps", "2", "--checkpoint-every", "0"), "checkpoint_every positive, got 2 and 0"),
        (("--preset", "base-lamb-128"), "must have optimizer adamw, as the peer, got base-lamb-128 of lamb"),
    ):
        capsys.readouterr()
        assert main([*argv, *more]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and printed.err.count("\n") == 1 and printed.out == ""


def test_the_peer_masks_and_samples_as_ours_does_by_the_same_numbers():
    tokenizer = numbered_tokenizer(MICRO)
    ids = text(MICRO, tokenizer).repeat(20, 1)
    torch.manual_seed(0)
    model = build_model(replace(MICRO, dropout=0.0, keep_prob=0.3, temperature=2.0), tokenizer)
    peer = TransformersPretraining(model, gathered=True)
    numbers = torch.rand(3, *ids.shape)
    output = model(ids.flatten(), PackedBatch.full(*ids.shape, ids.device), random=numbers.flatten(1))
    masked_ids, positions = peer.mask(ids, numbers)
    _, logits = peer.guess(ids, masked_ids, positions)
    samples = peer.sample_by(logits, numbers[2].gather(1, positions))
    corrupted_ids = output.corrupted_ids.view_as(ids)
    assert (ids.scatter(1, positions, samples) != corrupted_ids).sum() <= 1
    loss, *losses = peer(ids, numbers)
    expected = output.generator_loss, output.discriminator_loss
    assert torch.stack(losses).tolist() == pytest.approx([x.item() for x in expected], abs=1e-3)
    assert loss.item() == pytest.approx(output.loss.item(), rel=1e-3)
