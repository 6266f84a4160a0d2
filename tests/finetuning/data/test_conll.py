"""Sentences and their tags are read back as they were written, and a bad line is named."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.data.conll import read_conll
from electra_fast.finetuning.data.examples import TaggedExample
from electra_fast.finetuning.data.tasks import Columns

BOTH = ("text", "label")
CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
# # B-NP O
rejects VBZ B-VP O

Peter NNP B-NP B-PER
"""
CONLLU = """# sent_id = 1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tx\tx\tVERB\t_\t_\t_\t_\t_\t_
3\t#\t#\tSYM\t_\t_\t1\tobl\t_\tSpaceAfter=No

"""

words = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters="-#"), min_size=1)
tags = st.sampled_from(["O", "B-LOC", "I-LOC"])
sentences = st.lists(st.lists(st.tuples(words, tags), min_size=1), min_size=1)


def read(path, content, words=0, tags=-1, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_conll(path, Columns(words=words, tags=tags), **options))


@settings(deadline=None, max_examples=60)
@given(sentences, st.sampled_from(["\t", " ", "   "]), st.sampled_from(["\n", "\r\n"]), st.sampled_from([1, 2, 3]))
def test_sentences_are_read_as_written(tmp_path_factory, sentences, separator, end, blank):
    path = tmp_path_factory.mktemp("conll") / "a.txt"
    lines, begins = ["# a comment before the first word"], []
    for sentence in sentences:
        begins.append(len(lines) + 1)
        lines += [separator.join((word, "x", tag)) for word, tag in sentence] + [""] * blank
    expected = [
        TaggedExample(str(i), begin, *map(tuple, zip(*sentence, strict=True)))
        for i, (begin, sentence) in enumerate(zip(begins, sentences, strict=True))
    ]
    assert read(path, end.join(lines)) == expected
    assert read(path, end.join(lines), words=-3, tags=2) == expected


def test_conll_2003(tmp_path):
    path = tmp_path / "a.txt"
    first, second = read(path, CONLL_2003)
    # Within a sentence # is a word; before one it would begin a comment.
    assert first == TaggedExample("0", 3, ("EU", "#", "rejects"), ("B-ORG", "O", "O"))
    assert second == TaggedExample("1", 7, ("Peter",), ("B-PER",))
    assert read(path, CONLL_2003, tags=2)[0].tags == ("B-NP", "B-NP", "B-VP")
    assert read(path, CONLL_2003, tags=None, may_lack=BOTH)[0].tags is None


def test_words_between_tabs_may_have_blanks(tmp_path):
    assert read(tmp_path / "a.txt", "New York\tB-LOC\n#tag\tO\n")[0].words == ("New York", "#tag")


def test_conllu(tmp_path):
    expected = TaggedExample("0", 4, ("Vamos", "nos", "#"), ("VERB", "PRON", "SYM"))
    assert read(tmp_path / "a.conllu", CONLLU, 1, 3) == [expected]
    assert read(tmp_path / "a.conllu", CONLLU, None, "upos") == [expected]
    # A name of a column says as much as that of the file.
    assert read(tmp_path / "a.txt", CONLLU, "form", "upos") == read(tmp_path / "a.txt", CONLLU, "FORM", 3) == [expected]
    with pytest.raises(ValueError, match=r"one of id, form, .* got 'pos'"):
        read(tmp_path / "a.conllu", CONLLU, "form", "pos")


def test_tags_may_be_absent_of_a_test_file(tmp_path):
    path = tmp_path / "a.txt"
    assert read(path, "A\nb\n", may_lack=BOTH) == [TaggedExample("0", 1, ("A", "b"))]
    assert read(path, "A x\nb y\n", tags=3, may_lack=BOTH)[0].tags is None
    with pytest.raises(ValueError, match=r"a\.txt, line 1: must have tags in column -1, got 1 columns"):
        read(path, "A\nb\n")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "line 1: the file must hold sentences, got none"),
        ("-DOCSTART- O\n\n", "line 1: the file must hold sentences, got none"),
        ("A O\n\nb O O\n", "line 3: must have 2 columns, as the first word, got 3"),
        ("A\tO\nb O\n", "line 2: must have 2 columns, as the first word, got 1"),
        ("A\tO\n\tO\n", "line 2: the word must not be empty"),
        ("A\tO\nb\t\n", "line 2: the tag must not be empty"),
        ("A O\nb X\n", "line 2: the tag must be one of O, B-LOC, got 'X'"),
        (b"A O\n\xff O\n", "line 2: must be UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"a\.txt, {message}"):
        read(tmp_path / "a.txt", content, labels=("O", "B-LOC"))


def test_a_damaged_line_of_conllu_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"line 4: must have 10 columns"):
        read(tmp_path / "a.conllu", CONLLU.replace("\troot\t_\t_", "\troot"), "form", "upos")
    with pytest.raises(ValueError, match=r"line 1: must have words in column 12, got 10 columns"):
        read(tmp_path / "a.conllu", CONLLU[CONLLU.index("1\tVamos") :], 12, "upos")
