"""The command line, called as a user calls it."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from importlib import metadata

import pytest
import torch
from tiny_models import random_model

import electra_fast
from electra_fast import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining
from electra_fast.cli.main import COMMANDS, main
from electra_fast.inference.calibration import Calibration
from electra_fast.inference.detect import detect, fill_mask, format_table

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "quick", "brown", "fox", "jump", "##s", "over", "lazy", "dog", ".", ",", "東", "京"]
VOCAB = SPECIAL + WORDS
MAX_LENGTH = 16


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Directories of a discriminator and a generator with a vocabulary of a few words."""
    directories = {}
    for name, model_class in (("discriminator", ElectraForPreTraining), ("generator", ElectraForMaskedLM)):
        directory = tmp_path_factory.mktemp(name)
        # The word table is padded, as that of a fast pre-training run is.
        random_model(model_class, vocab_size=len(VOCAB) + 5, max_position_embeddings=MAX_LENGTH).save_pretrained(
            directory
        )
        (directory / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
        directories[name] = str(directory)
    return directories


def run(capsys, *argv: str) -> str:
    code, captured = main(list(argv)), capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def fail(capsys, *argv: str) -> str:
    """The one line that a user's mistake gives."""
    code, captured = main(list(argv)), capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert captured.err.endswith("\n") and captured.err.count("\n") == 1
    return captured.err


# The table of subcommands


def test_overview(capsys):
    for argv, code in ((["--help"], 0), ([], 2)):
        with pytest.raises(SystemExit) as exit:
            main(argv)
        assert exit.value.code == code
        out = capsys.readouterr().out
        assert all(name in out and line in out for name, (_, line) in COMMANDS.items())
    assert run(capsys, "--version") == f"electra-fast {electra_fast.__version__}\n"


def test_unknown_subcommand(capsys):
    error = fail(capsys, "detct", "--model", "x")
    assert error == f"electra-fast: error: unknown subcommand 'detct'; the subcommands are {', '.join(COMMANDS)}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_subcommand(capsys, name):
    with pytest.raises(SystemExit) as exit:
        main([name, "--help"])
    assert exit.value.code == 0
    assert f"usage: electra-fast {name}" in capsys.readouterr().out


def test_wrong_options_exit_with_2(capsys):
    for argv in (
        ["detect", "--threshold", "text"],
        ["detect", "--modle", "x"],
        ["fill-mask", "--model", "x", "--top-k", "many", "a"],
    ):
        fail(capsys, *argv)


def test_module_runs_without_heavy_imports():
    code = (
        "import sys, electra_fast.cli.main as c; c.main(['--version']); "
        "print('torch' in sys.modules, 'triton' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    done = subprocess.run(
        [sys.executable, "-m", "electra_fast", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"electra-fast {electra_fast.__version__}\n"


def test_interrupt_exits_with_130(monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("electra_fast.cli.info.InfoCommand.run", interrupt)
    assert main(["info"]) == 130


def test_a_reader_that_stops_ends_a_command_in_silence(models):
    command = [sys.executable, "-m", "electra_fast", "detect", "--model", models["discriminator"], "the fox"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 128 + signal.SIGPIPE)


def test_info(capsys):
    out = run(capsys, "info")
    assert f"electra_fast        {electra_fast.__version__}\n" in out
    document = json.loads(run(capsys, "info", "--json"))
    assert document["versions"]["torch"] == metadata.version("torch")
    assert {"op", "impl", "reason"} == document["ops"][0].keys()
    assert all(f"{op['op']:<20}{op['impl']:<8}{op['reason']}\n" in out for op in document["ops"])
    assert document["transformers"].keys() == {"obstacle", "limits"} and "  padding read" in out


def test_info_of_a_model_goes_by_its_activation(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("electra_fast.ops.registry.obstacle", lambda: None)  # as where a GPU runs the kernels
    ElectraConfig(hidden_act="relu", hidden_size=1024, num_attention_heads=4).save_pretrained(tmp_path)
    ops = {op["op"]: op for op in json.loads(run(capsys, "info", "--json", "--model", str(tmp_path)))["ops"]}
    assert ops["linear_gelu"]["impl"] == ops["rtd_head"]["impl"] == ops["attention"]["impl"] == "torch"
    assert ops["linear_gelu"]["reason"] == "the activation is relu; the kernel has gelu alone"
    assert ops["mlm_head"]["impl"] == "auto"
    document = json.loads(run(capsys, "info", "--json", "--model", str(tmp_path)))
    assert document["cpu_inference"] == dict.fromkeys(("fp32", "int8"), "the activation is relu")


# detect


def test_detect_prints_words_and_their_probabilities(capsys, models):
    text = "The quick brown fox ran over"
    out = run(capsys, "detect", "--model", models["discriminator"], "--device", "cpu", text)
    words, shown = (line.split() for line in out.splitlines())
    assert words == text.split()

    tokenizer = electra_fast.ElectraTokenizer.from_pretrained(models["discriminator"])
    model = ElectraForPreTraining.from_pretrained(models["discriminator"])
    with torch.no_grad():
        probabilities = model(**tokenizer(text, return_tensors="pt")).logits[0, 1:-1].sigmoid().tolist()
    assert shown == [f"{p:.0%}{'*' if p > 0.5 else ''}" for p in probabilities]


def test_a_word_is_replaced_where_one_of_its_tokens_is(models):
    tokenizer = electra_fast.ElectraTokenizer.from_pretrained(models["discriminator"])
    model = ElectraForPreTraining.from_pretrained(models["discriminator"])
    text = "The fox  JUMPS."
    (found,) = detect(model, tokenizer, [text])
    assert found.tokens == ["the", "fox", "jump", "##s", "."]
    assert [word.text for word in found.words] == ["The", "fox", "JUMPS", "."]
    p = found.probabilities
    assert [word.probability for word in found.words] == [p[0], p[1], max(p[2:4]), p[4]]
    threshold = (min(p[2:4]) + max(p[2:4])) / 2
    (found,) = detect(model, tokenizer, [text], threshold)
    assert found.words[2].replaced and found.replaced[2] != found.replaced[3]


def test_detect_uses_the_calibration_of_the_config(models):
    tokenizer = electra_fast.ElectraTokenizer.from_pretrained(models["discriminator"])
    model = ElectraForPreTraining.from_pretrained(models["discriminator"])
    (plain,) = detect(model, tokenizer, ["the fox jumps"])
    Calibration(scale=2.0, bias=-1.0, threshold=min(plain.probabilities) / 4).write(model.config)
    (found,) = detect(model, tokenizer, ["the fox jumps"])
    logits = torch.tensor(plain.probabilities).logit()
    assert found.probabilities == pytest.approx((2 * logits - 1).sigmoid().tolist(), abs=1e-5)
    assert found.replaced == [p > min(plain.probabilities) / 4 for p in found.probabilities]
    (strict,) = detect(model, tokenizer, ["the fox jumps"], threshold=1.0)
    assert not any(strict.replaced)


def test_detect_json(capsys, models):
    texts = ["the fox jumps", "the quick brown fox jumps over the lazy dog."]
    options = ["detect", "--model", models["discriminator"], "--json", "--impl", "torch"]
    document = json.loads(run(capsys, *options, *texts))
    assert [entry["text"] for entry in document] == texts
    assert document[0]["tokens"] == ["the", "fox", "jump", "##s"]
    assert document[0]["replaced"] == [p > 0.5 for p in document[0]["probabilities"]]
    assert document == json.loads(run(capsys, *options, "--threshold", "0.5", *texts))
    for threshold, expected in (("0", True), ("1", False)):
        (entry, _) = json.loads(run(capsys, *options, "--threshold", threshold, *texts))
        assert entry["replaced"] == [expected] * 4


def test_detect_in_batches_gives_what_one_by_one_gives(models):
    tokenizer = electra_fast.ElectraTokenizer.from_pretrained(models["discriminator"])
    model = ElectraForPreTraining.from_pretrained(models["discriminator"])
    texts = [" ".join(["the lazy dog"] * (i % 4 + 1)) for i in range(70)]
    together = detect(model, tokenizer, texts)
    for text, detection in zip(texts[-4:], together[-4:], strict=True):
        (alone,) = detect(model, tokenizer, [text])
        assert (alone.text, alone.tokens, alone.replaced) == (detection.text, detection.tokens, detection.replaced)
        assert alone.probabilities == pytest.approx(detection.probabilities, abs=1e-5)


def test_detect_reads_lines_of_stdin(capsys, models, monkeypatch):
    """A blank line is an empty text; so each line has its row."""

    def given(content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    given("\ufeffthe fox\r\n\n \nthe\u2028lazy dog".encode())
    document = json.loads(run(capsys, "detect", "--model", models["discriminator"], "--json"))
    assert [entry["text"] for entry in document] == ["the fox", "", " ", "the\u2028lazy dog"]
    assert [len(entry["tokens"]) for entry in document] == [2, 0, 0, 3]
    assert document[1] == {"text": "", "tokens": [], "probabilities": [], "replaced": []}
    given(b"the fox\n\nthe fox\n")
    out = run(capsys, "detect", "--model", models["discriminator"])
    block = out[: out.index("\n\n")]
    assert out == f"{block}\n\n\n\n\n{block}\n"
    given(b"the [MASK]\n\n[MASK]\n")
    document = json.loads(run(capsys, "fill-mask", "--model", models["generator"], "--json"))
    assert [len(entry["masks"]) for entry in document] == [1, 0, 1]
    given(b"\n")
    assert len(json.loads(run(capsys, "detect", "--model", models["discriminator"], "--json"))) == 1
    given(b"")
    assert "got none" in fail(capsys, "detect", "--model", models["discriminator"])
    given(b"fox\n\xff\n")
    assert "standard input, line 2: must be UTF-8" in fail(capsys, "detect", "--model", models["discriminator"])


def test_mistakes_are_one_line(capsys, models, tmp_path):
    discriminator, generator = models["discriminator"], models["generator"]
    too_long = " ".join(["fox"] * MAX_LENGTH)
    for argv, message in (
        (
            ["detect", "--model", discriminator, too_long],
            f"at most {MAX_LENGTH} tokens for this model, got {MAX_LENGTH + 2}",
        ),
        (["detect", "--model", discriminator, "--threshold", "2", "fox"], "threshold must be in [0, 1], got 2"),
        (["detect", "--model", str(tmp_path / "no"), "fox"], "neither a directory nor a name of a model on the Hub"),
        (["detect", "--model", str(tmp_path), "fox"], f"{tmp_path} must hold config.json, which is missing"),
        (
            ["detect", "--model", generator, "fox"],
            "must be an ElectraForPreTraining, but lacks discriminator_predictions",
        ),
        (["detect", "--model", discriminator, "--device", "gpu", "fox"], "device_map must name a device"),
        (
            ["fill-mask", "--model", discriminator, "a [MASK]"],
            "must be an ElectraForMaskedLM, but lacks generator_lm_head",
        ),
        (["fill-mask", "--model", generator, "the fox"], "a text must hold [MASK], got 'the fox'"),
        (
            ["fill-mask", "--model", generator, "--top-k", "0", "[MASK]"],
            f"from 1 to the vocabulary's {len(VOCAB)}, got 0",
        ),
    ):
        error = fail(capsys, *argv)
        assert error.startswith(f"electra-fast {argv[0]}: error: ") and message in error


def test_the_table_wraps_and_aligns():
    cells = [("the", "1%", False), ("incomprehensible", "90%*", True), ("東京", "20%", False), (".", "70%*", True)]
    assert format_table(cells, width=80).splitlines() == [
        "    the  incomprehensible   東京      .",
        "     1%              90%*    20%   70%*",
    ]
    wrapped = format_table(cells, width=26).splitlines()
    assert wrapped == ["    the  incomprehensible", "     1%              90%*", "   東京      .", "    20%   70%*"]
    assert len(format_table(cells, width=3).splitlines()) == 8
    red = format_table(cells, width=80, is_coloured=True)
    assert red.count("\x1b[1;31m") == red.count("\x1b[0m") == 4
    assert re.sub(r"\x1b\[[\d;]*m", "", red) == format_table(cells, width=80)


@pytest.mark.parametrize(
    ("is_terminal", "no_colour", "expected"), [(True, None, True), (True, "1", False), (False, None, False)]
)
def test_detect_explains_and_colours_on_a_terminal_alone(capsys, models, monkeypatch, is_terminal, no_colour, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour is not None:
        monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    out = run(capsys, "detect", "--model", models["discriminator"], "--threshold", "0", "the fox")
    assert ("\x1b[" in out) == expected
    assert ("*: above 0%" in out) == is_terminal


# fill-mask


def test_fill_mask(capsys, models):
    text = "the [MASK] jumps over the [MASK] ."
    (entry,) = json.loads(run(capsys, "fill-mask", "--model", models["generator"], "--top-k", "3", "--json", text))
    tokenizer = electra_fast.ElectraTokenizer.from_pretrained(models["generator"])
    encoded = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = ElectraForMaskedLM.from_pretrained(models["generator"])(**encoded).logits
    at_masks = logits[encoded["input_ids"] == tokenizer.mask_token_id][:, : len(VOCAB)].softmax(-1)
    assert entry["text"] == text and len(entry["masks"]) == 2
    for mask, probabilities in zip(entry["masks"], at_masks, strict=True):
        best = probabilities.topk(3)
        assert [candidate["token"] for candidate in mask] == [VOCAB[i] for i in best.indices]
        assert [candidate["probability"] for candidate in mask] == pytest.approx(best.values.tolist(), rel=1e-4)


def test_fill_mask_prints_a_list_for_each_mask(capsys, models):
    out = run(capsys, "fill-mask", "--model", models["generator"], "the [MASK] fox", "[MASK] [MASK]").splitlines()
    assert out[0] == "the [MASK] fox" and out[6] == "[MASK] [MASK]"
    assert out[7] == "  mask 1" and out[13] == "  mask 2" and len(out) == 19
    probabilities = [float(line.split()[0]) for line in out[1:6]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_a_vocabulary_larger_than_the_model_is_refused(capsys, models, tmp_path):
    random_model(ElectraForPreTraining, vocab_size=8).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    error = fail(capsys, "detect", "--model", str(tmp_path), "lazy dog")
    assert f"the tokenizer gives the id {VOCAB.index('dog')}, but the model's vocabulary ends at 7" in error


def test_all_tokens_of_the_vocabulary_share_the_probability(models):
    tokenizer = electra_fast.ElectraTokenizer.from_pretrained(models["generator"])
    model = ElectraForMaskedLM.from_pretrained(models["generator"])
    (filling,) = fill_mask(model, tokenizer, ["[MASK] fox"], top_k=len(VOCAB))
    assert sorted(token for token, _ in filling.masks[0]) == sorted(VOCAB)
    assert sum(probability for _, probability in filling.masks[0]) == pytest.approx(1)
