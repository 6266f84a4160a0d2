"""Shards whose documents are mixed over the whole text."""

from itertools import pairwise

import numpy as np
import pytest
from texts import documents

from electra_fast.cli.prepare import PrepareCommand
from electra_fast.pretraining.text.corpus import Corpus
from electra_fast.pretraining.text.mixing import reordered
from electra_fast.pretraining.text.shards import ShardedCorpus, write_shards
from electra_fast.pretraining.text.vocab import train_vocab, write_vocab
from electra_fast.pretraining.text.windows import TokenWindow
from electra_fast.tokenizer import ElectraTokenizer

# Each document has its number among the documents as its first word, and two lines.
TEXTS = [f"{i} {document}".replace(". ", ".\n", 1) for i, document in enumerate(documents(300))]


@pytest.fixture(scope="module")
def tokenizer():
    return ElectraTokenizer(vocab={token: i for i, token in enumerate(train_vocab(TEXTS, 300))})


def contents(window):
    """A document a tuple of lines, each a tuple of ids."""
    lines = [tuple(window.ids[a:b].tolist()) for a, b in pairwise(window.line_offsets)]
    return [tuple(lines[a:b]) for a, b in pairwise(window.document_offsets)]


def windows_of(directory, tokenizer):
    return list(ShardedCorpus(directory).training_windows(tokenizer, None))


def test_mixed_shards_have_the_same_documents_in_other_places(tokenizer, tmp_path):
    corpus = Corpus.from_texts(TEXTS)
    plain = write_shards(corpus, tokenizer, tmp_path / "plain", window_chars=12_000)
    mixed = write_shards(corpus, tokenizer, tmp_path / "mixed", window_chars=12_000, mix_seed=0)
    before, after = (windows_of(tmp_path / name, tokenizer) for name in ("plain", "mixed"))
    assert len(before) == len(after) > 5
    ordered = [document for window in before for document in contents(window)]
    assert sorted(document for window in after for document in contents(window)) == sorted(ordered)
    assert all(window.ids.dtype == np.uint16 for window in after)
    assert [plain[name] for name in ("data", "tokens", "documents", "held_out")] == [
        mixed[name] for name in ("data", "tokens", "documents", "held_out")
    ]
    # Every shard has documents of each quarter of the text.
    places = {document: i for i, document in enumerate(ordered)}
    quarters = [{4 * places[document] // len(places) for document in contents(window)} for window in after]
    assert all(found == {0, 1, 2, 3} for found in quarters)


def test_a_seed_decides_the_places(tokenizer, tmp_path):
    made = {}
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / name, window_chars=12_000, mix_seed=seed)
        made[name] = [contents(window) for window in windows_of(tmp_path / name, tokenizer)]
    assert made["one"] == made["again"] != made["two"]


def test_reordered_documents():
    window = TokenWindow(np.arange(10), np.array([0, 2, 2, 5, 9, 10]), np.array([0, 2, 3, 5]))
    assert contents(reordered(window, np.array([2, 0]))) == [((5, 6, 7, 8), (9,)), ((0, 1), ())]
    assert contents(reordered(window, np.array([], np.int64))) == []


def test_prepare_mixes(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    write_vocab(train_vocab(TEXTS, 300), tmp_path / "vocab.txt")
    for name, seed in (("plain", None), ("mixed", 0)):
        PrepareCommand(
            data=(str(tmp_path / "text.txt"),), vocab=tmp_path / "vocab.txt", out=tmp_path / name, mix_seed=seed
        ).run()
    assert "300" not in capsys.readouterr().err
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("plain", "mixed")]
    assert names[0] == names[1]
