"""The rules that a tokenizer accepts: those of `tokenizers`, Google's on request, and none that it does not know."""

import json
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from vocabularies import SENTENCES, small_vocab

from electra_fast.tokenizer import ElectraTokenizer

GREEK = "ΑΒΣαβσςΌόΐ"
VOCAB = {
    token: index
    for index, token in enumerate(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(p + c for c in "αβσςοόιΐabß.,'-()" for p in ("", "##"))]
    )
}


def google_words(text: str, strip_accents: bool) -> list[str]:
    """Words by the rules of google-research/electra's BasicTokenizer: each token by str.lower, then split."""
    words = []
    for token in text.split():
        token = token.lower()
        if strip_accents:
            token = "".join(c for c in unicodedata.normalize("NFD", token) if unicodedata.category(c) != "Mn")
        words += re.findall(r"[.,'()-]|[^.,'()-]+", token)
    return words


@settings(max_examples=500, deadline=None)
@given(text=st.text(st.sampled_from(GREEK + "abAß.,'-() \u0301\u200d\u00ad"), max_size=24), strip_accents=st.booleans())
def test_final_sigma_as_python_lowers(text, strip_accents):
    tokenizer = ElectraTokenizer(VOCAB, final_sigma=True, strip_accents=strip_accents)
    text = text.replace("\u200d", "").replace("\u00ad", "")  # cleaned away before words are lower-cased
    expected = google_words(text, strip_accents)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    words = []
    for token, word in zip(encoding.tokens(), encoding.word_ids(), strict=True):
        if word == len(words):
            words.append("")
        words[word] += token.removeprefix("##")
    assert [word if "[UNK]" not in word else None for word in words] == [
        word if all(f"##{c}" in VOCAB for c in word) else None for word in expected
    ]


def test_final_sigma_is_off_by_default_and_kept_in_files(tmp_path):
    default, google = ElectraTokenizer(VOCAB), ElectraTokenizer(VOCAB, final_sigma=True)
    assert default.tokenize("ΑΣ ΣΑ Σ") == ["α", "##σ", "σ", "##α", "σ"]
    assert google.tokenize("ΑΣ ΣΑ Σ ΑΣ.Α ΑΣ'") == "α ##ς σ ##α σ α ##σ . α α ##ς '".split()
    google.save_pretrained(tmp_path)
    again = ElectraTokenizer.from_pretrained(tmp_path)
    assert again.final_sigma and again.tokenize("ΑΣ") == ["α", "##ς"]


def test_longest_word(tmp_path):
    word = "a" * 150
    assert ElectraTokenizer(VOCAB).tokenize(word) == ["[UNK]"]
    google = ElectraTokenizer(VOCAB, max_input_chars_per_word=200)
    assert google.tokenize(word) == ["a"] + ["##a"] * 149 and google.tokenize("a" * 201) == ["[UNK]"]
    google.save_pretrained(tmp_path)
    assert len(ElectraTokenizer.from_pretrained(tmp_path).tokenize(word)) == 150
    assert ElectraTokenizer.from_pretrained(tmp_path, max_input_chars_per_word=100).tokenize(word) == ["[UNK]"]


@pytest.mark.parametrize(
    ("lower", "strip", "expected"),
    [
        (True, None, "o"),
        (True, True, "o"),
        (True, False, "ό"),
        (False, None, "Ό"),
        (False, False, "Ό"),
        (False, True, "O"),
    ],
)
def test_accents_have_three_states(lower, strip, expected):
    text = "Ό"
    vocab = VOCAB | {"Ό": 900, "Ο": 901}
    tokens = ElectraTokenizer(vocab, do_lower_case=lower, strip_accents=strip).tokenize(text)
    assert tokens == [{"o": "ο", "O": "Ο"}.get(expected, expected)]


def backend(**components):
    made = Tokenizer(components.get("model", models.WordPiece(small_vocab(), unk_token="[UNK]")))
    made.normalizer = components.get("normalizer", normalizers.BertNormalizer())
    made.pre_tokenizer = components.get("pre_tokenizer", pre_tokenizers.BertPreTokenizer())
    if "post_processor" in components:
        made.post_processor = components["post_processor"]
    return made


@pytest.mark.parametrize(
    ("name", "component", "kind"),
    [
        ("normalizer", normalizers.NFKC(), "NFKC"),
        ("normalizer", normalizers.Sequence([normalizers.NFC(), normalizers.BertNormalizer()]), "Sequence"),
        ("pre_tokenizer", pre_tokenizers.Whitespace(), "Whitespace"),
        ("pre_tokenizer", pre_tokenizers.Split(Regex("a"), "isolated"), "Split"),
        ("post_processor", processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)), "RobertaProcessing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unknown_components_are_named(tmp_path, name, component, kind):
    foreign = backend(**{name: component})
    foreign.save(str(tmp_path / "tokenizer.json"))
    for make in (
        lambda: ElectraTokenizer(tokenizer_object=foreign),
        lambda: ElectraTokenizer(tokenizer_file=tmp_path / "tokenizer.json"),
        lambda: ElectraTokenizer.from_pretrained(tmp_path),
    ):
        with pytest.raises(ValueError, match=f"{name} must be .*, got {kind}, which is not supported"):
            make()


def test_components_taken_away_later_are_named():
    tokenizer = ElectraTokenizer(small_vocab())
    tokenizer("a dog")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="pre_tokenizer must be BertPreTokenizer, got Whitespace"):
        tokenizer("a dog")


@pytest.mark.parametrize(
    "processor",
    [
        None,
        processors.BertProcessing(("[SEP]", small_vocab()["[SEP]"]), ("[CLS]", small_vocab()["[CLS]"])),
        processors.TemplateProcessing(
            single="[CLS]:1 [CLS]:0 $A:1",
            pair="$B:1 [SEP]:0 $A:0 [SEP]:1",
            special_tokens=[(token, small_vocab()[token]) for token in ("[CLS]", "[SEP]")],
        ),
    ],
    ids=["none", "bert", "template"],
)
def test_frames(processor):
    """Whatever stands around texts and pairs, in whatever order and of whatever type."""
    made = backend(post_processor=processor) if processor else backend()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer = ElectraTokenizer(tokenizer_object=made)
    oracle = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    for inputs in ([SENTENCES[0]], [SENTENCES[0], SENTENCES[1]]):
        for special in (True, False):
            actual = tokenizer(*inputs, add_special_tokens=special, return_special_tokens_mask=True)
            expected = oracle.encode(*inputs, add_special_tokens=special)
            assert actual["input_ids"] == expected.ids and actual["token_type_ids"] == expected.type_ids
            assert actual["special_tokens_mask"] == expected.special_tokens_mask
            assert actual.sequence_ids() == expected.sequence_ids
    ids, _ = tokenizer.encode_bulk(SENTENCES[:1])
    assert ids.tolist() == oracle.encode(SENTENCES[0]).ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be a tokenizer.json of the tokenizers library"),
        ("[]", "must be a tokenizer.json of the tokenizers library"),
        (json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}}), "must hold a WordPiece model, got BPE"),
    ],
)
def test_damaged_tokenizer_json(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        ElectraTokenizer.from_pretrained(tmp_path)


def test_damaged_vocabularies(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[CLS]\n[SEP]\n[MASK]\ndog\n")
    with pytest.raises(ValueError, match=r"must hold unk_token '\[UNK\]'"):
        ElectraTokenizer(path)
    path.write_bytes("[UNK]\ndog\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"vocab\.txt must be UTF-8 text"):
        ElectraTokenizer(path)
