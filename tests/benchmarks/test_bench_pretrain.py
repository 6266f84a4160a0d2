"""The benchmark of pre-training: its rows on very little work, and what it refuses to time."""

import json
import math
from dataclasses import replace

import pytest
import torch
from electra_fast.benchmarks import OURS
from electra_fast.benchmarks.pretrain.bench import (
    PROVIDERS,
    OurPretraining,
    PretrainBench,
    make_training,
    numbered_tokenizer,
    text,
    uncompiled,
)
from electra_fast.benchmarks.pretrain.check import PLAIN, PLAIN_GATHERED, Losses, check_losses, is_far, our_step
from electra_fast.benchmarks.pretrain.peers import TransformersPretraining, TransformersTraining

from electra_fast.cli.main import main
from electra_fast.pretraining.build import build_model
from electra_fast.pretraining.cost import training_flops
from electra_fast.pretraining.recipes import PRESETS, TINY

CPU = torch.device("cpu")
MICRO = replace(
    TINY,
    num_hidden_layers=2,
    hidden_size=32,
    num_attention_heads=2,
    embedding_size=16,
    generator_size=0.5,
    vocab_size=300,
    seq_length=24,
    batch_size=4,
    dropout=0.1,
)


@pytest.fixture(autouse=True)
def micro(monkeypatch):
    """Preset tiny is smaller still."""
    monkeypatch.setitem(PRESETS, "tiny", MICRO)


@pytest.fixture
def work():
    """(recipe, tokenizer, ids, model)"""
    tokenizer = numbered_tokenizer(MICRO)
    torch.manual_seed(0)
    return MICRO, tokenizer, text(MICRO, tokenizer), build_model(MICRO, tokenizer)


def fail(capsys, *argv) -> str:
    code, captured = main(["bench", "pretrain", *argv]), capsys.readouterr()
    assert code == 2 and captured.out == "" and captured.err.count("\n") == 1
    return captured.err


# The command


def test_rows_and_table(capsys, tmp_path, monkeypatch):
    rows_file = tmp_path / "rows.jsonl"
    providers = [OURS, PLAIN, PLAIN_GATHERED]
    options = ["--steps", "10", "--lengths", "24", "16", "--json", str(rows_file)]
    monkeypatch.setattr("electra_fast.benchmarks.pretrain.bench.device_peak", lambda device: 1e9)
    assert main(["bench", "pretrain", *options]) == 0
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    assert [(row["seq_length"], row["provider"]) for row in rows] == [(n, p) for n in (24, 16) for p in providers]
    for row in rows:
        assert row["status"] == "right"
        low, median, high = row["milliseconds"]
        assert 0 < low <= median <= high
        n_tokens = row["batch_size"] * row["seq_length"]
        assert row["tokens_per_second"] == pytest.approx(n_tokens / median * 1e3, rel=1e-3)
        assert (row["bench"], row["preset"], row["batch_size"]) == ("pretrain", "tiny", 4)
        assert (row["precision"], row["steps"], row["threads"]) == ("fp32", 10, 1)
        recipe = replace(MICRO, seq_length=row["seq_length"])
        flops = row["batch_size"] * training_flops(recipe, 300).total
        assert row["mfu"] == pytest.approx(flops / (median / 1e3) / 1e9, rel=1e-3)
        assert row["peak_mb"] is None and row["gpu"] is None
        assert row["ratio"] == 1 if row["provider"] == OURS else row["ratio"] > 0
    assert {"date", "cpu", "torch", "transformers", "electra_fast", "commit"} <= rows[0].keys()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 + len(rows)
    for (name, provider, times, tokens, used, peak, speed), row in zip(lines[2:], rows, strict=True):
        assert name == f"tiny, 4 x {row['seq_length']}, fp32" and provider == row["provider"]
        assert [float(t) for t in times.split(" / ")] == row["milliseconds"]
        assert (tokens, used, peak) == (f"{row['tokens_per_second']:,}", f"{row['mfu']:.1%}", "")
        assert speed == ("" if provider == OURS else f"{row['ratio']:.2f} x as fast")


def test_mistakes_are_one_line(capsys, tmp_path):
    for argv, message in (
        (("--presets", "huge"), "the preset must be one of tiny, "),
        (("--presets", "base-lamb-128"), "must have optimizer adamw, as the peer, got base-lamb-128 of lamb"),
        (("--providers", "theirs"), f"providers must be among {OURS}, {PLAIN}, "),
        (("--providers", "transformers-graphed"), "needs device cuda, got cpu"),
        (("--lengths", "1000"), "seq_length must be from 3 to max_position_embeddings 64, got 1000"),
        (("--lengths",), "must name at least one of each"),
        (("--steps", "7"), "steps must be a positive multiple of 5"),
        (("--batch-size", "0"), "batch_size must be positive, got 0"),
        (("--json", str(tmp_path / "none" / "rows")), "the directory of the output does not exist"),
    ):
        assert message in fail(capsys, *argv), argv
    if not torch.cuda.is_available():
        assert "device cuda needs a CUDA GPU" in fail(capsys, "--device", "cuda")


def test_defaults_by_device():
    def workloads(**options):
        recipes = PretrainBench(**options)._recipes()
        return [(recipe.name, recipe.batch_size, recipe.seq_length) for recipe in recipes]

    assert workloads() == [("tiny", 4, 64)]
    assert workloads(device="cuda") == [("small", 128, 128), ("small", 32, 512), ("base", 256, 128), ("base", 64, 512)]
    assert workloads(device="cuda", batch_size=3, presets=("small",), lengths=(512,)) == [("small", 3, 512)]


def test_times_are_of_one_step(capsys, tmp_path, monkeypatch):
    def in_turn(make, batches, repeats, bar):
        assert repeats == 3 and list(make) == [PLAIN, OURS]
        for run in make.values():
            run()()
        return {PLAIN: [1.0, 2.0, 3.0], OURS: [0.5, 0.5, 0.5]}

    monkeypatch.setattr("electra_fast.benchmarks.training.time_in_turn", in_turn)
    rows_file = tmp_path / "rows.jsonl"
    PretrainBench(steps=15, lengths=(24,), providers=(PLAIN, OURS), json=rows_file).run()
    theirs, ours = map(json.loads, rows_file.read_text(encoding="utf-8").splitlines())
    assert ours["milliseconds"] == [100, 100, 100] and ours["tokens_per_second"] == 4 * 24 * 10
    assert theirs["milliseconds"][1] == 400 and theirs["ratio"] == 4


def test_what_does_not_begin_in_time_is_left_out(capsys, tmp_path):
    rows_file = tmp_path / "rows.jsonl"
    PretrainBench(lengths=(24, 16), steps=5, providers=(OURS,), seconds=1e-9, json=rows_file).run()
    assert "left out after 1e-09 s: tiny, 4 x 24; tiny, 4 x 16" in capsys.readouterr().out
    assert not rows_file.exists()


# What is refused


def test_a_wrong_loss_of_ours_gets_no_time(capsys, monkeypatch):
    right = our_step

    def wrong(model, ids):
        *drawn, losses, norm = right(model, ids)
        return *drawn, losses._replace(generator=losses.generator + 3e-4), norm

    monkeypatch.setattr("electra_fast.benchmarks.pretrain.check.our_step", wrong)
    with pytest.raises(SystemExit, match="electra_fast is wrong, or fails"):
        PretrainBench(steps=5, lengths=(24,)).run()
    out = capsys.readouterr().out
    assert [line.count("no time") for line in out.splitlines()[2:5]] == [1, 0, 0]
    assert "tiny, length 24: electra_fast is wrong: one step has losses" in out


def test_a_peer_that_is_wrong_or_fails_gets_no_time(capsys, monkeypatch):
    def fails(self, n_steps):
        raise RuntimeError("no memory left")

    detect = TransformersPretraining.detect

    def wrong(self, ids, corrupted_ids):
        return detect(self, ids, corrupted_ids) * (1.001 if self.gathered else 1)

    with monkeypatch.context() as patch:
        patch.setattr(TransformersPretraining, "detect", wrong)
        providers = (OURS, PLAIN, "transformers-compiled-gathered")
        PretrainBench(steps=5, lengths=(24,), providers=providers).run()
    out = capsys.readouterr().out
    assert [line.count("no time") for line in out.splitlines()[2:5]] == [0, 0, 1]
    assert "transformers-compiled-gathered is wrong: one step" in out

    def make(name, *args):
        made = make_training(name, *args)
        if name == PLAIN:
            made.train = lambda n_steps: fails(made, n_steps)
        return made

    monkeypatch.setattr("electra_fast.benchmarks.pretrain.bench.make_training", make)
    PretrainBench(steps=5, lengths=(24,)).run()
    out = capsys.readouterr().out
    assert f"{PLAIN} fails: RuntimeError: no memory left" in out
    assert [line.count("no time") for line in out.splitlines()[2:5]] == [0, 1, 0]


def test_first_updates_are_compared(capsys, monkeypatch):
    warm_up = OurPretraining.warm_up
    monkeypatch.setattr(OurPretraining, "warm_up", lambda self: Losses(*(loss * 1.1 for loss in warm_up(self))))
    with pytest.raises(SystemExit):
        PretrainBench(steps=5, lengths=(24,)).run()
    assert f"{OURS} is wrong: its first losses are" in capsys.readouterr().out


def test_losses_that_are_no_number_are_far():
    expected = Losses(8.0, 0.5)
    assert not is_far(Losses(8.3, 0.49), expected, 0.05)
    for losses in (Losses(math.nan, 0.5), Losses(8.0, math.inf), Losses(8.5, 0.5), Losses(8.0, 0.45)):
        assert is_far(losses, expected, 0.05)


def test_a_generator_that_knows_something_at_first_is_wrong(work):
    *_, model = work
    with torch.no_grad():
        model.generator.generator_lm_head.bias[7] = 20.0
    assert set(check_losses(*work)) == {PLAIN}


# The peers


@pytest.mark.parametrize("gathered", [False, True])
def test_the_peer_masks_samples_and_shares(work, gathered):
    _, tokenizer, ids, model = work
    model.mask_prob, model.keep_prob = 0.8, 0.2
    peer = TransformersPretraining(model, gathered)
    ids = ids.repeat(50, 1)
    masked_ids, positions = peer.mask(ids, torch.rand(2, *ids.shape))
    assert positions.shape == (200, 19)  # 80 % of 24
    assert all(len(set(row)) == 19 for row in positions.tolist())
    assert not model.is_special[ids.gather(1, positions)].any()
    assert positions.unique().tolist() == list(range(1, 23))
    is_changed = torch.zeros_like(ids, dtype=torch.bool).scatter(1, positions, True)
    assert torch.equal(masked_ids[~is_changed], ids[~is_changed])
    is_mask = masked_ids == tokenizer.mask_token_id
    assert is_mask.sum().item() / (200 * 19) == pytest.approx(0.8, abs=0.04)

    table = peer.generator.electra.embeddings.word_embeddings.weight
    assert table is peer.discriminator.electra.embeddings.word_embeddings.weight
    assert table is peer.generator.generator_lm_head.weight
    n_parameters = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in peer.parameters()) == n_parameters
    assert peer.generator.config._attn_implementation == peer.discriminator.config._attn_implementation == "sdpa"


def test_samples_follow_the_softmax_at_the_temperature(work):
    peer = TransformersPretraining(work[-1], gathered=True)
    peer.temperature = 2.0
    logits = torch.tensor([2.0, 0.0, -1.0, -torch.inf])
    torch.manual_seed(0)
    counts = peer.sample(logits.expand(100, 200, 4)).flatten().bincount(minlength=4)
    assert (counts / 20_000).tolist() == pytest.approx((logits / 2).softmax(0).tolist(), abs=0.015)


def test_both_follow_the_schedule_and_learn(work):
    """The same optimizer, with bias correction: after the same steps both are about as far."""
    recipe, _, ids, model = work
    recipe = replace(recipe, n_steps=60, warmup_steps=6, dropout=0.0)
    ours = make_training(OURS, model, recipe, ids, CPU, "fp32")
    peer = make_training(PLAIN_GATHERED, model, recipe, ids, CPU, "fp32")
    begin = ours.warm_up(), peer.warm_up()
    ours.loop.log_every = 10
    ours.train(40), peer.train(30)
    rates = [group["lr"] for group in ours.loop.optimizers[0].param_groups]
    assert rates == pytest.approx([recipe.learning_rate * (1 - 49 / 60)] * len(rates))
    peer.train(9)
    assert peer._optimizer.param_groups[0]["lr"] == pytest.approx(rates[0])
    end = ours.records[-1]["generator_loss"], peer.train(1)[0].item()
    assert not is_far(*begin, 0.05)
    assert max(end) < begin[0].generator - 0.2
    assert end[0] == pytest.approx(end[1], rel=0.1)


@pytest.mark.parametrize("gathered", [False, True])
def test_all_that_gives_the_loss_compiles_in_one_piece(work, gathered):
    recipe, _, ids, model = work
    found = []
    for options in (None, {"backend": "eager", "fullgraph": True}):
        peer = TransformersPretraining(model, gathered)
        torch.manual_seed(0)
        found.append(TransformersTraining(peer, recipe, ids, "fp32", options).train(3))
    torch.testing.assert_close(*found)


def test_the_uncompiled_forms():
    assert [uncompiled(name) for name in PROVIDERS] == [
        OURS, PLAIN, PLAIN_GATHERED, PLAIN, PLAIN_GATHERED, PLAIN_GATHERED,
    ]  # fmt: skip


def test_autocast_computes_in_bf16(work):
    recipe, _, ids, model = work
    found = []
    peer = TransformersPretraining(model, gathered=True)
    peer.generator.generator_lm_head.register_forward_hook(lambda *args: found.append(args[-1].dtype))
    for precision in ("bf16", "fp32"):
        TransformersTraining(peer, recipe, ids, precision, None).train(1)
    assert found == [torch.bfloat16, torch.float32]
    assert {p.dtype for p in peer.parameters()} == {torch.float32}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu(tmp_path):
    rows_file = tmp_path / "rows.jsonl"
    providers = (OURS, PLAIN, PLAIN_GATHERED)
    PretrainBench(presets=("tiny",), lengths=(64,), device="cuda", steps=5, providers=providers, json=rows_file).run()
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    assert [row["status"] for row in rows] == ["right"] * 3
    for row in rows:
        assert row["precision"] == "bf16" and row["peak_mb"] > 1
        assert row["mfu"] is None or 0 < row["mfu"] < 1
