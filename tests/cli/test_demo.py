"""The demo, in seconds instead of minutes."""

import random
import re

import pytest
from texts import documents, text

from electra_fast.cli import demo
from electra_fast.pretraining import preset
from electra_fast.pretraining.run import new_tokenizer
from electra_fast.training.progress import read_records


def test_it_runs_through_and_prints_what_it_logs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    (tmp_path / "text.txt").write_text(text(300), encoding="utf-8")
    monkeypatch.setattr(demo, "_SPEED_SECONDS", 0.5)
    monkeypatch.setattr(
        "sys.argv", ["demo", "--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "demo"), "--minutes", "0.1"]
    )
    assert demo.main() == 0
    printed = capsys.readouterr().out

    log = tmp_path / "demo" / "log.jsonl"
    before, after = read_records(log, "evaluation")
    assert after["generator_loss"] < before["generator_loss"]
    assert after["discriminator_loss"] < before["discriminator_loss"]
    for record in (before, after):
        assert f"{record['generator_loss']:.3f}" in printed
        assert f"{record['generator_accuracy']:.1%}" in printed
        assert f"{record['discriminator_loss']:.4f}" in printed
        assert f"{record['discriminator_auc']:.3f}" in printed
    assert f"{after['unigram_accuracy']:.1%}" in printed
    (speed,) = read_records(log, "demo_speed")
    assert f"{speed['ratio']:.2f} x as fast" in printed
    assert speed["max_difference"] < 1e-4
    (detection,) = read_records(log, "demo_detection")
    assert f"{detection['threshold']:.3f}" in printed and f"AUC {detection['auc']:.3f}" in printed
    assert re.search(r"\[\w+\]", printed)


def test_it_replaces_an_earlier_demo_but_nothing_else(tmp_path, monkeypatch, capsys):
    (tmp_path / "letter.txt").write_text("dear all", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["demo", "--out", str(tmp_path)])
    assert demo.main() == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_flags_say_which_tokens_are_replaced():
    tokenizer = new_tokenizer(documents(), preset("tiny"))
    sentence = "The file is closed, when a list returns."
    altered, flags = demo.replace_words(sentence, ["zebra", "file"], tokenizer, random.Random(0))
    assert altered != sentence
    tokens = tokenizer.tokenize(altered)
    assert len(flags) == len(tokens)
    kept = [token for token, flag in zip(tokens, flags, strict=True) if not flag]
    assert set(kept) <= set(tokenizer.tokenize(sentence))
    assert any(flags)


def test_sentences_are_plain_and_different():
    sentences = demo.find_sentences(documents(), seed=0)
    assert 20 < len(sentences) == len(set(sentences)) <= 200
    assert all(6 <= len(sentence.split()) <= 14 and sentence[-1] == "." for sentence in sentences)
