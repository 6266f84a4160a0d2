"""Embeddings: those of the model on padded batches, in order, in constant memory; and the file of the command."""

import gc
import gzip
import itertools
import json
import lzma
import random
import re
import threading

import numpy as np
import pytest
import torch
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import random_model
from tokenizers.processors import TemplateProcessing

from electra_fast import ElectraForPreTraining, ElectraForSequenceClassification, ElectraModel, ElectraTokenizer
from electra_fast.cli.embed import EmbedCommand, written_rows
from electra_fast.inference import batching
from electra_fast.inference import embed as embedding
from electra_fast.inference.embed import embed, embed_stream, load_encoder
from electra_fast.model import cpu_encoder

LETTERS = "abcdefghij"
MAX_LENGTH = 16
TEXT = st.lists(st.sampled_from(LETTERS), max_size=2 * MAX_LENGTH).map(" ".join)
TOKENIZER = ElectraTokenizer(
    {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS])},
    model_max_length=MAX_LENGTH,
)
MODEL = random_model(ElectraModel)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    random_model(ElectraForPreTraining).save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return path


def texts_of(n):
    draw = random.Random(0)
    return [" ".join(draw.choices(LETTERS, k=i * 7 % 25)) for i in range(n)]


@torch.no_grad()
def expected_embeddings(texts, pooling="mean", tokenizer=TOKENIZER, model=MODEL, max_length=MAX_LENGTH):
    """Each text by itself, as a user would write it."""
    rows = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state[0]
        rows.append((hidden.mean(0) if pooling == "mean" else hidden[0]).numpy())
    return np.stack(rows) if rows else np.empty((0, model.config.hidden_size), np.float32)


def assert_close(found, expected):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# What it computes


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(TEXT, max_size=12),
    pooling=st.sampled_from(["mean", "cls"]),
    max_length=st.integers(2, MAX_LENGTH),
    batch_tokens=st.sampled_from([1, 30, 10_000]),
    chunk=st.integers(1, 8),
    side=st.sampled_from(["right", "left"]),
)
def test_embeddings_are_those_of_each_text_by_itself(texts, pooling, max_length, batch_tokens, chunk, side):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "CHUNK_ITEMS", chunk)
        patch.setattr(TOKENIZER, "truncation_side", side)
        options = {"pooling": pooling, "max_length": max_length, "batch_tokens": batch_tokens}
        found = embed(texts, MODEL, TOKENIZER, **options)
        expected = expected_embeddings(texts, pooling, max_length=max_length)
    assert found.shape == (len(texts), MODEL.config.hidden_size)
    assert_close(found, expected)


def test_texts_differ_and_long_ones_are_cut_by_default():
    texts = texts_of(20)
    found = embed(texts, MODEL, TOKENIZER)
    assert_close(found, expected_embeddings(texts))
    assert max(len(text.split()) for text in texts) > MAX_LENGTH
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(found[:9], 2)) > 1e-3  # else order would not show


def test_the_model_limits_the_length_where_the_tokenizer_knows_none():
    tokenizer = ElectraTokenizer(TOKENIZER.get_vocab())
    text, limit = " ".join("abc" * 50), MODEL.config.max_position_embeddings
    assert_close(embed([text], MODEL, tokenizer), expected_embeddings([text], tokenizer=tokenizer, max_length=limit))


def test_normalized_vectors_have_length_one():
    texts = texts_of(9)
    plain, found = embed(texts, MODEL, TOKENIZER), embed(texts, MODEL, TOKENIZER, normalize=True)
    assert_close(found, plain / np.linalg.norm(plain, axis=1, keepdims=True))


def test_models_by_name_in_memory_and_with_a_head(directory):
    texts = texts_of(5)
    model, tokenizer = load_encoder(directory, device="cpu")
    expected = embed(texts, model, tokenizer)
    for head in (ElectraForPreTraining, ElectraForSequenceClassification):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)  # of the head that the checkpoint lacks
            assert_close(embed(texts, head.from_pretrained(directory), tokenizer), expected)
    for name in (directory, str(directory)):
        assert_close(embed(texts, name), expected)


def test_lower_precision_gives_fp32_vectors_close_by(directory):
    texts = texts_of(5)
    model, tokenizer = load_encoder(directory, device="cpu", dtype="bf16")
    assert model.dtype == torch.bfloat16
    found, expected = embed(texts, model, tokenizer), embed(texts, directory)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("is_training", [True, False])
def test_the_training_mode_is_restored_and_drops_nothing(is_training):
    model = random_model(ElectraModel, hidden_dropout_prob=0.5).train(is_training)
    found = embed(texts_of(3), model, TOKENIZER)
    assert model.training == model.encoder.training == is_training
    assert_close(found, expected_embeddings(texts_of(3), model=model.eval()))


# Any number of texts


def test_an_endless_input_takes_constant_memory(monkeypatch):
    class Text(str):
        """One that can be counted."""

    def endless():
        nonlocal n_read
        for n_read in itertools.count(1):
            yield Text("a b c"[: n_read % 5 + 1])

    monkeypatch.setattr(batching, "CHUNK_ITEMS", 50)
    n_read, n_given = 0, 0
    portions = embed_stream(endless(), MODEL, TOKENIZER)
    for portion in itertools.islice(portions, 4):
        n_given += len(portion)
        assert n_read <= n_given + 50
        gc.collect()
        assert sum(type(thing) is Text for thing in gc.get_objects()) <= 150
    portions.close()
    assert n_given == 200
    assert not [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_the_next_texts_are_tokenised_while_the_first_are_computed(monkeypatch):
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 2)
    tokenising, computing = ([threading.Event() for _ in range(3)] for _ in range(2))
    numbers = {"tokenise": itertools.count(), "compute": itertools.count()}

    class Waiting(embedding.EmbeddingNetwork):
        """Waits for the other to be at work too."""

        def _tokenise(self, texts):
            number = next(numbers["tokenise"])
            tokenising[number].set()
            assert number == 0 or computing[number - 1].wait(timeout=60)
            return super()._tokenise(texts)

        def _compute(self, rows, bar):
            number = next(numbers["compute"])
            computing[number].set()
            assert number == 2 or tokenising[number + 1].wait(timeout=60)
            return super()._compute(rows, bar)

    found = list(Waiting(encoder=MODEL, tokenizer=TOKENIZER).stream(texts_of(6)))
    assert_close(np.concatenate(found), expected_embeddings(texts_of(6)))


def test_nothing_is_padded(monkeypatch):
    n_tokens = []
    encode_packed = ElectraModel.encode_packed

    def spy(model, ids, packed):
        lengths = packed.cu_seqlens.diff()
        assert int(lengths.sum()) == len(ids) and packed.max_seqlen == int(lengths.max())
        n_tokens.append(len(ids))
        return encode_packed(model, ids, packed)

    monkeypatch.setattr(ElectraModel, "encode_packed", spy)
    texts, counts = texts_of(30), batching.Counts()
    list(embedding.EmbeddingNetwork(encoder=MODEL, tokenizer=TOKENIZER, batch_tokens=64).stream(texts, counts=counts))
    expected = sum(min(MAX_LENGTH, 2 + len(text.split())) for text in texts)
    assert sum(n_tokens) == counts.tokens == expected and max(n_tokens) <= 64 and counts.examples == 30


def test_the_bar_counts_texts(capsys):
    embed(texts_of(7), MODEL, TOKENIZER, progress=True)
    printed = capsys.readouterr()
    assert "7.00/7.00" in printed.err and not printed.out


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("a", MODEL, TOKENIZER), {}, TypeError, "texts must be a list of str or an iterable of them, got str"),
        ((7, MODEL, TOKENIZER), {}, TypeError, "got int"),
        ((["a", None], MODEL, TOKENIZER), {}, TypeError, r"texts\[1\] must be a str, got NoneType"),
        (
            (["a", "\ud800"], MODEL, TOKENIZER),
            {},
            ValueError,
            r"texts\[1\] must be well-formed .*\\ud800",
        ),
        ((["a"], torch.nn.Linear(1, 1), TOKENIZER), {}, TypeError, "model must be .*, got torch.nn.modules.linear"),
        ((["a"], MODEL), {}, TypeError, "a model in memory needs its tokenizer"),
        ((["a"], MODEL, "[CLS]"), {}, TypeError, "the tokenizer must be an ElectraTokenizer, got str"),
        ((["a"], "/no/such/model"), {}, FileNotFoundError, "/no/such/model"),
        ((["a"], MODEL, TOKENIZER), {"pooling": "sum"}, ValueError, "pooling must be one of mean, cls, .*, got 'sum'"),
        ((["a"], MODEL, TOKENIZER), {"batch_tokens": 0}, ValueError, "batch_tokens must be an integer .*, got 0"),
        ((["a"], MODEL, TOKENIZER), {"max_length": 1}, ValueError, "max_length must be .* from 2 to .*64, got 1"),
        ((["a"], MODEL, TOKENIZER), {"max_length": 65}, ValueError, "max_length must be .*64, got 65"),
        ((["a"], MODEL, TOKENIZER), {"max_length": 9.0}, ValueError, "max_length must be .*, got 9.0"),
    ],
)
def test_mistakes_are_told(arguments, options, error, message):
    with pytest.raises(error, match=message):
        embed(*arguments, **options)


def test_a_tokenizer_that_does_not_fit_is_refused():
    larger = ElectraTokenizer({f"[{name}]": i for i, name in enumerate(["UNK", *range(99)])})
    with pytest.raises(ValueError, match="the tokenizer must have at most the model's 99 tokens, got "):
        embed(["a"], MODEL, larger)
    backend = ElectraTokenizer(TOKENIZER.get_vocab()).backend_tokenizer
    backend.post_processor = TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    with pytest.raises(ValueError, match=r"between \[CLS\] and \[SEP\], an empty one becomes \[3\]"):
        embed(["a"], MODEL, ElectraTokenizer(tokenizer_object=backend))


def test_an_unknown_dtype_is_refused(directory):
    with pytest.raises(ValueError, match="dtype must be one of fp32, bf16, fp16, int8, got 'fp8'"):
        load_encoder(directory, dtype="fp8")


@pytest.mark.skipif(cpu_encoder.obstacle() is not None, reason=f"{cpu_encoder.obstacle()}")
def test_int8_is_close_to_fp32(directory):
    model, tokenizer = load_encoder(directory, device="cpu", dtype="int8")
    found, expected = embed(texts_of(20), model, tokenizer), embed(texts_of(20), directory)
    assert 0 < np.abs(found - expected).max() < 0.2 * np.abs(expected).max()


# The command


@pytest.fixture
def run(directory, tmp_path):
    def run(*arguments, model=directory):
        fixed = ("--output", tmp_path / "out.npy", "--device", "cpu", *(["--model", model] if model else []))
        arguments = tuple(map(str, (*fixed, *arguments)))
        tyro.cli(EmbedCommand, args=arguments, config=(tyro.conf.FlagCreatePairsOff,)).run()
        return np.load(tmp_path / "out.npy")

    return run


def test_the_command_writes_a_row_for_each_line(run, directory, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 3)
    texts = ["a b", "", "c d e", "f g", "", "h", ""]
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress(("\r\n".join(texts) + "\n").encode()))
    assert_close(run("--input", tmp_path / "in.txt.gz"), embed(texts, directory))
    n_tokens = sum(len(text.split()) + 2 for text in texts)
    speed = rf"7 texts, {n_tokens} tokens in [\d.]+ s: [\d,]+ texts/s, [\d,]+ tokens/s\n"
    assert re.fullmatch(speed, capsys.readouterr().err)
    options = {"pooling": "cls", "normalize": True, "max_length": 3}
    arguments = ("--pooling", "cls", "--normalize", "--max-length", 3, "--batch-tokens", 5, "--dtype", "fp32")
    assert_close(run("--input", tmp_path / "in.txt.gz", *arguments), embed(texts, directory, **options))
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress(b""))
    assert run("--input", tmp_path / "in.txt.gz").shape == (0, MODEL.config.hidden_size)


def csv_of(texts):
    return "n,t\n" + "".join(f'1,"{text}"\n' for text in texts)


def jsonl_of(texts):
    return "".join(json.dumps({"n": 1, "t": text}) + "\n" for text in texts)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", csv_of(["a b", "c\nd", "", "e"]), ("--text", "t")),
        ("a.csv", csv_of(["a b", "c\nd", "", "e"]).removeprefix("n,t\n"), ("--text", "1", "--no-header")),
        ("a.tsv", "n\tt\n1\ta b\n1\tc d\n\n1\te\n", ("--text", "t")),
        ("a.jsonl", jsonl_of(["a b", "c\nd", None, "e"]), ("--text", "t")),
        ("a.json", jsonl_of(["a b", "c\nd", "", "e"]), ("--text", "t")),
        ("a.txt", "n\tt\n1\ta b\n1\tc d\n\n1\te\n", ("--text", "t")),
    ],
)
@pytest.mark.parametrize(("ending", "packed"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_the_command_reads_a_column_and_refuses_a_table_without(
    run, directory, tmp_path, name, content, options, ending, packed
):
    path = tmp_path / (name + ending)
    path.write_bytes(packed(content.encode()))
    assert_close(run("--input", path, *options), embed(["a b", "c d", "", "e"], directory))
    for others in [()] * (not name.endswith(".txt")) + [("--no-header",)]:
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is a table: --text must name the column to read"):
            run("--input", path, *others)


def test_lines_of_text_may_hold_tabs(run, directory, tmp_path):
    (tmp_path / "in.txt").write_text("a\tb\nc\n")
    assert_close(run("--input", tmp_path / "in.txt"), embed(["a b", "c"], directory))


def test_a_bad_row_of_the_table_is_named_and_leaves_no_file(run, tmp_path):
    for content, options, message in (
        ("t,u\na,b\na,b,c\n", ("--text", "t"), r"a\.csv, line 3: must have 2 fields"),
        ("t,u\na,b\n", ("--text", "v"), r"a\.csv, line 1: the header must have one 'v', got t, u"),
        ("t\n", ("--text", "t"), "there must be examples, got none"),
    ):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(ValueError, match=message):
            run("--input", tmp_path / "a.csv", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_the_command_has_a_model_of_its_own(run, tmp_path):
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    assert run("--input", tmp_path / "in.txt", model=None).shape == (2, 192)


def test_the_output_is_whole_or_absent(run, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 1)
    (tmp_path / "in.txt").write_bytes(b"a\nb\nc\n\xff\n")
    with pytest.raises(ValueError, match="line 4: must be UTF-8"):
        run("--input", tmp_path / "in.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]
    (tmp_path / "text.npy").hardlink_to(tmp_path / "in.txt")
    (tmp_path / "a.npy").symlink_to("text.npy")
    for arguments, error, message in (
        (("--input", tmp_path / "none.txt"), FileNotFoundError, "none.txt"),
        (("--input", tmp_path), FileNotFoundError, "is a directory"),
        (("--input", tmp_path / "in.txt", "--output", tmp_path / "a.npy"), FileExistsError, "over what is read"),
        (
            ("--input", tmp_path / "in.txt", "--output", tmp_path / "out.bin"),
            ValueError,
            "must be a .npy or .parquet file, got ",
        ),
        (("--input", tmp_path / "in.txt", "--output", tmp_path / "no" / "x.npy"), FileNotFoundError, "directory"),
    ):
        with pytest.raises(error, match=message):
            run(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "in.txt", "text.npy"]
    assert (tmp_path / "text.npy").read_bytes() == b"a\nb\nc\n\xff\n"


@given(sizes=st.lists(st.integers(0, 5), max_size=5), n_columns=st.sampled_from([1, 7, 768]))
def test_rows_are_written_as_numpy_writes_them(tmp_path_factory, sizes, n_columns):
    path = tmp_path_factory.mktemp("rows") / "a.npy"
    parts = [np.random.default_rng(i).normal(size=(n, n_columns)) for i, n in enumerate(sizes)]
    with written_rows(path, n_columns) as write:
        for part in parts:
            write(part)
    expected = np.concatenate([np.empty((0, n_columns)), *parts]).astype(np.float32)
    np.testing.assert_array_equal(np.load(path), expected)
    assert np.load(path, mmap_mode="r").shape == expected.shape
