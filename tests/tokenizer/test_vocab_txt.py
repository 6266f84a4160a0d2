"""Every vocab.txt that transformers reads gives its ids here, however its lines end, repeat and are spaced."""

import numpy as np
import pytest
from transformers import BertTokenizer

from electra_fast.conversion.sources import tokenizer_of
from electra_fast.pretraining.extend_vocab import extended_tokenizer
from electra_fast.pretraining.text.vocab import load_tokenizer
from electra_fast.pretraining.text.windows import word_start_table
from electra_fast.tokenizer import ElectraTokenizer

LINES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "na", "##ive", "c", "##c", "東", "京"]
TEXT = "The dog naive cc 東京 [MASK] x"
FILES = {
    "a repeated line": [*LINES, "dog", "x"],
    "a line repeated twice": ["dog", *LINES, "dog", "x", "dog"],
    "repeated special tokens": [*LINES, "[MASK]", "[CLS]", "[UNK]", "[PAD]", "[SEP]"],
    "blank lines": [*LINES[:6], "", "", *LINES[6:]],
    "blank lines at the end": [*LINES, "", ""],
    "blank lines first": ["", "", *LINES],
    "lines of spaces": [*LINES[:6], " ", "\t", "\u3000", *LINES[6:]],
    "spaces after tokens": [*LINES[:5], "the ", "dog\t", "na\u3000", "##ive\x85", *LINES[9:]],
    "spaces before tokens": [*LINES[:6], " dog", *LINES[6:]],
    "equal but for spaces": [*LINES, "dog ", "cc"],
    "other ends of lines": [*LINES, "\u2028", "\x85", "\x0b", "\x1c", "a\u2028b", "z"],
    "a byte order mark": ["\ufeff[PAD]", *LINES[1:]],
    "no [PAD], [MASK]": [token for token in LINES if token not in ("[PAD]", "[MASK]")],
}


def read_by_both(path):
    theirs = BertTokenizer.from_pretrained(path)
    yield ElectraTokenizer.from_pretrained(path), theirs
    yield ElectraTokenizer(path / "vocab.txt"), theirs
    yield ElectraTokenizer.from_pretrained(path / "vocab.txt"), theirs
    yield load_tokenizer(path / "vocab.txt", 512), theirs
    yield tokenizer_of(path / "vocab.txt", 512), theirs


@pytest.mark.parametrize("end", ["\n", "\r\n", "no last \n"])
@pytest.mark.parametrize("name", FILES)
def test_ids_as_in_transformers(tmp_path, name, end):
    content = "\n".join(FILES[name]) if end == "no last \n" else "".join(line + end for line in FILES[name])
    (tmp_path / "vocab.txt").write_bytes(content.encode())
    for ours, theirs in read_by_both(tmp_path):
        assert ours.get_vocab() == theirs.get_vocab()
        assert dict(ours(TEXT, TEXT)) == dict(theirs(TEXT, TEXT))
        assert len(ours) == len(theirs) and ours.all_special_ids == theirs.all_special_ids
        ids = list(range(max(theirs.get_vocab().values()) + 3))
        assert [ours.decode(i) for i in ids] == [theirs.decode(i) for i in ids]
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
        rows, _ = ours.encode_bulk([TEXT])
        assert rows.tolist() == theirs(TEXT)["input_ids"]


def test_repeated_lines_survive_saving(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in FILES["a repeated line"]))
    tokenizer = ElectraTokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path / "saved")
    for loaded in (ElectraTokenizer, BertTokenizer):
        assert loaded.from_pretrained(tmp_path / "saved")(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]


def test_tables_have_a_row_for_every_id(tmp_path):
    """Ids with gaps go beyond the number of tokens, and new entries of a larger vocabulary begin after them."""
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in FILES["a repeated line"]))
    tokenizer = ElectraTokenizer.from_pretrained(tmp_path)
    assert (len(tokenizer), tokenizer.n_ids) == (len(LINES) + 1, len(LINES) + 2)
    starts = word_start_table(tokenizer)
    assert starts.shape == (tokenizer.n_ids,) and np.flatnonzero(~starts).tolist() == [8, 10]
    larger = extended_tokenizer(tokenizer, ["dog doggo doggo doggo the doggo"] * 4, 3)
    assert tokenizer.get_vocab().items() < larger.get_vocab().items()
    new = larger.get_vocab().keys() - tokenizer.get_vocab().keys()
    assert sorted(larger.get_vocab()[token] for token in new)[0] == tokenizer.n_ids


@pytest.mark.parametrize(
    ("vocab", "error", "message"),
    [
        ({"[UNK]": -1}, ValueError, "vocab must map tokens, each a str, to ids of at least 0"),
        ({"[UNK]": "0"}, ValueError, r"to ids of at least 0, got \('\[UNK\]', '0'\)"),
        ({1: 0}, ValueError, "to ids of at least 0"),
        ({"[UNK]": 1 << 31}, ValueError, "ids must be below 16777216"),
        ({"[UNK]": 0, "a": 1, "b": 1}, ValueError, "each token must have an id of its own, but .* have 1"),
        ([("[UNK]", 0)], TypeError, "vocab must be a path or a mapping"),
        ("", ValueError, "must be a vocab.txt, got a directory"),
    ],
)
def test_what_is_no_vocabulary(vocab, error, message):
    with pytest.raises(error, match=message):
        ElectraTokenizer(vocab)
