"""The tokenizer on one thread: bulk ids, offsets, and batches that become tensors."""

import pytest

pytestmark = pytest.mark.benchmark(group="tokenizer")


def test_ids(benchmark, tokenizer, texts):
    benchmark(tokenizer.encode_bulk, texts, num_threads=1)


def test_ids_of_a_new_tokenizer(benchmark, tokenizer, texts, tmp_path):
    """Measures a tokenizer that has no word in its cache yet."""
    tokenizer.save_pretrained(tmp_path)
    load = type(tokenizer).from_pretrained

    def encode(new):
        return new.encode_bulk(texts, num_threads=1)

    benchmark.pedantic(encode, setup=lambda: ((load(tmp_path),), {}), rounds=20)


def test_offsets(benchmark, tokenizer, texts):
    benchmark(tokenizer.encode_bulk, texts, num_threads=1, spans=True)


@pytest.mark.parametrize("n_texts", [1, 32, 256])
def test_sentences_to_tensors(benchmark, tokenizer, sentences, n_texts):
    batch = sentences[1000 : 1000 + n_texts]
    benchmark(tokenizer, batch, padding=True, truncation=True, max_length=128, return_tensors="pt")


def test_pairs_to_tensors(benchmark, tokenizer, texts):
    firsts, seconds = texts[:256], texts[256:512]
    benchmark(tokenizer, firsts, seconds, padding=True, truncation=True, max_length=128, return_tensors="pt")


def test_decoding(benchmark, tokenizer, sentences):
    rows = tokenizer(sentences[:256], truncation=True).input_ids
    benchmark(tokenizer.batch_decode, rows)
