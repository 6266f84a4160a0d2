"""Without the C++ extension: `tokenizers` encodes with the same results, torch computes, and each says so once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_call_grid import CHUNKS
from vocabularies import SENTENCES, small_vocab

from electra_fast.tokenizer import ElectraTokenizer, extension, library, rows

HIDDEN = """
import sys
sys.modules |= {"electra_fast._tokenizer": None, "electra_fast._cpu": None}  # their import fails
"""
DETECTS = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from electra_fast.cli.main import main
    assert main(["detect", "The president been the United States signed the bill."]) == 0
print(*sorted(str(warning.message).partition(",")[0] for warning in caught), sep="\\n")
"""
CASES = "import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", HIDDEN + code, *arguments], capture_output=True, text=True)


def test_a_command_works_and_warns_of_both():
    done = run(DETECTS)
    assert done.returncode == 0, done.stderr
    scores, model, tokenizer = done.stdout.splitlines()[-3:]
    assert [int(score.rstrip("%*")) > 50 for score in scores.split()] == [False] * 2 + [True] + [False] * 7
    assert tokenizer == "texts are encoded by the tokenizers package" and model == "models run on a CPU by torch"


def test_the_grid_of_calls_gives_what_transformers_gives():
    grid = Path(__file__).with_name("test_call_grid.py")
    done = run(CASES, *(f"{grid}::test_grid[{chunk}]" for chunk in range(0, CHUNKS, 4)), "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def both(monkeypatch):
    """A tokenizer on the C++ extension, and one on the package."""
    compiled = ElectraTokenizer(small_vocab())
    compiled.encode("the dog")
    for module in (extension, rows):
        monkeypatch.setattr(module, "Column", library.Column)
        monkeypatch.setattr(module, "Side", library.Side)
    monkeypatch.setattr(extension, "Encoder", library.Encoder)
    monkeypatch.setattr(extension, "obstacle", "hidden")
    plain = ElectraTokenizer(small_vocab())
    with pytest.warns(UserWarning, match="by the tokenizers package, .* slower: hidden"):
        assert isinstance(plain._encoder()._encoder, library.Encoder)
    return compiled, plain


TEXTS = [*SENTENCES, "", "[MASK] the dog", "x" * 120, "a\n\nb"]


@pytest.mark.parametrize("special", [True, False], ids=["framed", "bare"])
def test_bulk_is_that_of_the_extension(both, special, tmp_path):
    compiled, plain = (t.encode_bulk(iter(TEXTS), special, word_starts=True, spans=True) for t in both)
    for expected, actual in zip(compiled, plain, strict=True):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    compiled, plain = (t.encode_files(path, add_special_tokens=special, dtype=np.uint16) for t in both)
    for expected, actual in zip(compiled, plain, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("texts", "error"),
    [(["a", 3], TypeError), (["a", "\ud800"], ValueError), ([["a"]], TypeError)],
    ids=["number", "surrogate", "list"],
)
def test_errors_are_those_of_the_extension(both, texts, error):
    messages = []
    for tokenizer in both:
        with pytest.raises(error) as raised:
            tokenizer.encode_bulk(texts)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_files_that_are_not_utf8_and_final_sigma_are_refused(both, tmp_path):
    (tmp_path / "latin").write_bytes(b"a\nb\xe9c")
    for tokenizer in both:
        with pytest.raises(ValueError, match="must be UTF-8, but byte 3 cannot be there"):
            tokenizer.encode_files(tmp_path / "latin")
    with pytest.raises(ValueError, match="final_sigma must be False"), pytest.warns(UserWarning, match="slower"):
        ElectraTokenizer(small_vocab(), final_sigma=True).encode("a")
