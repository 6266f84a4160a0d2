"""Components of a tokenizer.json that do exactly what BERT's do are served, others are refused by name."""

import json
import random
import warnings

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizer
from vocabularies import SENTENCES, every_character_vocab, small_vocab

from electra_fast.tokenizer import ElectraTokenizer

BERT = normalizers.BertNormalizer
SPACE, PUNCTUATION = pre_tokenizers.WhitespaceSplit, pre_tokenizers.Punctuation


def sequence(*parts):
    return normalizers.Sequence(list(parts))


def splits(*parts):
    return pre_tokenizers.Sequence(list(parts))


def backend(vocab, normalizer=None, pre_tokenizer=None, post_processor=None):
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = BERT() if normalizer is None else normalizer
    made.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    made.post_processor = post_processor or processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return made


SERVED = {
    "sequence": {"normalizer": sequence(BERT())},
    "cased": {"normalizer": sequence(BERT(lowercase=False))},
    "keeps accents": {"normalizer": sequence(BERT(strip_accents=False))},
    "nested": {"normalizer": sequence(sequence(), sequence(sequence(BERT(clean_text=False))))},
    "lower case": {"normalizer": normalizers.Lowercase()},
    "BERT without lower case, then lower case": {
        "normalizer": sequence(BERT(lowercase=False), normalizers.Lowercase())
    },
    "two halves of BERT": {
        "normalizer": sequence(
            BERT(handle_chinese_chars=False, strip_accents=False, lowercase=False), BERT(clean_text=False)
        )
    },
    "splits": {"pre_tokenizer": splits(pre_tokenizers.BertPreTokenizer())},
    "nested splits": {"pre_tokenizer": splits(splits(pre_tokenizers.BertPreTokenizer()))},
    "spaces, punctuation": {"pre_tokenizer": splits(SPACE(), PUNCTUATION())},
    "punctuation, spaces": {"pre_tokenizer": splits(PUNCTUATION(), SPACE())},
    "spaces twice": {"pre_tokenizer": splits(SPACE(), pre_tokenizers.BertPreTokenizer())},
    "post-processor": {
        "post_processor": processors.Sequence([processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))]),
    },
}
REFUSED = {
    "NFD": ({"normalizer": sequence(normalizers.NFD(), normalizers.Lowercase())}, "Sequence.*: it holds NFD"),
    "as in tutorials": (
        {"normalizer": sequence(normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents())},
        "it holds NFD, StripAccents",  # which strips spacing marks too
    ),
    "other order": ({"normalizer": sequence(normalizers.Lowercase(), BERT(lowercase=False))}, "it takes the steps"),
    "twice": ({"normalizer": sequence(BERT(), BERT())}, "it takes the steps clean_text, .*, clean_text"),
    "empty": ({"normalizer": sequence()}, "it is empty"),
    "nested stranger": ({"normalizer": sequence(BERT(), sequence(normalizers.NFKC()))}, "it holds NFKC"),
    "spaces alone": ({"pre_tokenizer": SPACE()}, "WhitespaceSplit.*: it does not split at punctuation"),
    "punctuation alone": ({"pre_tokenizer": splits(PUNCTUATION())}, "it does not split at space"),
    "punctuation lost": ({"pre_tokenizer": splits(SPACE(), PUNCTUATION("removed"))}, "has the behavior Removed"),
    "digits": (
        {"pre_tokenizer": splits(pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits())},
        "it holds Digits",
    ),
    "two post-processors": (
        {"post_processor": processors.Sequence([processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))] * 2)},
        "it holds BertProcessing, BertProcessing",
    ),
}


@pytest.fixture(scope="module")
def vocab():
    """ASCII and every fortieth of the others: a vocabulary of all takes a second to build."""
    tokens = [token for i, token in enumerate(every_character_vocab()) if token.isascii() or i % 40 == 0]
    return {token: i for i, token in enumerate(tokens)}


@pytest.fixture(scope="module")
def texts(vocab):
    chance = random.Random(0)
    letters = [token for token in vocab if len(token) == 1] + list(" \t\x00\u2028\u0301É東.,")
    return SENTENCES + ["".join(chance.choices(letters, k=30)) for _ in range(300)]


@pytest.mark.parametrize("name", SERVED)
def test_the_same_under_another_name(tmp_path, name, vocab, texts):
    made = backend(vocab, **SERVED[name])
    made.save(str(tmp_path / "tokenizer.json"))
    expected = made.encode_batch(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rules that transformers' class would replace
        loaded = ElectraTokenizer.from_pretrained(tmp_path)
    for ours in (
        loaded,
        ElectraTokenizer(tokenizer_object=made),
        ElectraTokenizer(tokenizer_file=tmp_path / "tokenizer.json"),
    ):
        batch = ours(texts, return_offsets_mapping=True)
        assert batch["input_ids"] == [row.ids for row in expected]
        assert batch["offset_mapping"] == [row.offsets for row in expected]
        assert ours("a dog", "fox")["input_ids"] == made.encode("a dog", "fox").ids
        assert isinstance(ours.do_lower_case, bool)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(name):
    components, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"which is not supported: {message}" if message[:2] == "it" else message):
        ElectraTokenizer(tokenizer_object=backend(small_vocab(), **components))


def test_a_component_set_later():
    tokenizer = ElectraTokenizer(small_vocab())
    before = tokenizer("The dog")["input_ids"]
    tokenizer.backend_tokenizer.normalizer = sequence(BERT(lowercase=False))
    assert tokenizer("The dog")["input_ids"] != before and not tokenizer.do_lower_case


def test_a_component_set_later_is_saved_before_it_is_used(tmp_path):
    tokenizer = ElectraTokenizer(small_vocab())
    tokenizer.backend_tokenizer.normalizer = sequence(BERT(lowercase=False))
    assert not tokenizer.do_lower_case
    tokenizer.backend_tokenizer.normalizer = sequence(BERT(lowercase=False))
    tokenizer.save_pretrained(tmp_path)
    assert not ElectraTokenizer.from_pretrained(tmp_path).do_lower_case
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    with pytest.raises(ValueError, match="NFC"):
        tokenizer.save_pretrained(tmp_path)


def test_a_normalizer_in_a_sequence_takes_the_settings_of_the_config(tmp_path):
    backend(small_vocab(), sequence(BERT())).save(str(tmp_path / "tokenizer.json"))
    for settings in ({}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        ours, theirs = ElectraTokenizer.from_pretrained(tmp_path), BertTokenizer.from_pretrained(tmp_path)
        assert ours(SENTENCES)["input_ids"] == theirs(SENTENCES)["input_ids"], settings


def test_the_rules_of_a_tokenizer_json_hold_and_a_difference_is_told(tmp_path):
    """docs/drop-in.md lists it: transformers' from_pretrained does not read these rules, its constructor does."""
    backend(small_vocab(), BERT(lowercase=False)).save(str(tmp_path / "tokenizer.json"))
    with pytest.warns(UserWarning, match=r"lowercase=False \(there True; do_lower_case settles it\)$"):
        ours = ElectraTokenizer.from_pretrained(tmp_path)
    text = "The Dog"
    assert ours(text)["input_ids"] == BertTokenizer(tokenizer_file=str(tmp_path / "tokenizer.json"))(text)["input_ids"]
    theirs = BertTokenizer.from_pretrained(tmp_path)
    assert ours(text)["input_ids"] != theirs(text)["input_ids"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settled = ElectraTokenizer.from_pretrained(tmp_path, do_lower_case=True)
    assert settled(text)["input_ids"] == theirs(text)["input_ids"]


OWN_RULES = {
    "clean_text=False (there True)": {"normalizer": BERT(clean_text=False)},
    "max_input_chars_per_word=3 (there 100; max_input_chars_per_word settles it)": {"max_input_chars_per_word": 3},
    "unk_token=[MASK] (there [UNK])": {"unk_token": "[MASK]"},
    "continuing_subword_prefix=@ (there ##)": {"continuing_subword_prefix": "@"},
    "tokens around texts (there [CLS] A [SEP] and [CLS] A [SEP] B [SEP])": {
        "post_processor": processors.BertProcessing(("[CLS]", 2), ("[SEP]", 3))
    },
}


@pytest.mark.parametrize("messages", [[message] for message in OWN_RULES] + [list(OWN_RULES)])
def test_one_warning_names_every_rule_that_transformers_replaces(tmp_path, messages):
    parts = {name: part for message in messages for name, part in OWN_RULES[message].items()}
    made = backend(small_vocab(), parts.pop("normalizer", None), None, parts.pop("post_processor", None))
    for name, value in parts.items():
        setattr(made.model, name, value)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    for name in (tmp_path, path):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours = ElectraTokenizer.from_pretrained(name)
        assert len(caught) == 1 and str(caught[0].message).endswith(f"takes others: {', '.join(messages)}")
        assert caught[0].filename == __file__
    theirs = BertTokenizer.from_pretrained(tmp_path)
    texts = ["jumping", "\x00dog the", "\u20ac", "overs"]
    assert ours(texts)["input_ids"] != theirs(texts)["input_ids"]
    assert ours(texts)["input_ids"] == [row.ids for row in made.encode_batch(texts)]


def test_what_settles_a_rule_silences_the_warning(tmp_path):
    made = backend(small_vocab())
    made.model.max_input_chars_per_word, made.model.unk_token = 3, "[MASK]"
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ElectraTokenizer.from_pretrained(tmp_path, max_input_chars_per_word=3, unk_token="[MASK]")


def test_a_file_by_its_path_takes_the_settings_given(tmp_path):
    path = tmp_path / "tokenizer.json"
    backend(small_vocab()).save(str(path))
    for settings in ({"do_lower_case": False}, {"strip_accents": False}, {"name_or_path": "x"}):
        ours, theirs = (cls.from_pretrained(path, **settings) for cls in (ElectraTokenizer, BertTokenizer))
        assert ours(SENTENCES)["input_ids"] == theirs(SENTENCES)["input_ids"], settings
        assert ours.name_or_path == theirs.name_or_path == str(path)


def test_the_name_is_where_the_files_were_found(tmp_path):
    ElectraTokenizer(small_vocab()).save_pretrained(tmp_path)
    for place in (tmp_path, tmp_path / "vocab.txt"):
        ours, theirs = (cls.from_pretrained(place, name_or_path="x") for cls in (ElectraTokenizer, BertTokenizer))
        assert ours.name_or_path == theirs.name_or_path == str(place)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("given", [{}, {"truncation_side": "right", "padding_side": "right"}])
def test_sides_of_a_tokenizer_json_hold_where_nothing_else_names_them(tmp_path, side, given):
    made = backend(small_vocab())
    made.enable_truncation(6, direction=side)
    made.enable_padding(direction=side)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    texts = ["the dog jumps over the fox", "a"]
    for make in (
        lambda cls: cls.from_pretrained(tmp_path, **given),
        lambda cls: cls.from_pretrained(path, **given),
        lambda cls: cls(tokenizer_file=str(path), **given),
        lambda cls: cls(tokenizer_object=made, **given),
    ):
        ours, theirs = make(ElectraTokenizer), make(BertTokenizer)
        for options in ({"truncation": True, "max_length": 5}, {"padding": True}, {}):
            assert dict(ours(texts, **options)) == dict(theirs(texts, **options))
        ours.save_pretrained(tmp_path / "again")
        again = ElectraTokenizer.from_pretrained(tmp_path / "again")
        assert again.truncation_side == theirs.truncation_side and again.padding_side == theirs.padding_side


def test_without_a_decoder_ids_are_joined_to_words(tmp_path):
    made = backend(small_vocab())
    made.decoder = None
    made.save(str(tmp_path / "tokenizer.json"))
    ours, theirs = ElectraTokenizer.from_pretrained(tmp_path), BertTokenizer.from_pretrained(tmp_path)
    ids = ours(SENTENCES)["input_ids"]
    assert ours.batch_decode(ids) == theirs.batch_decode(ids)
