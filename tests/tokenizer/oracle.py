"""The oracle: a `tokenizers.Tokenizer` made here, not by our code, and what ours has to have in common with it."""

from collections.abc import Sequence
from functools import cache
from itertools import chain

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from vocabularies import SPECIAL

from electra_fast.tokenizer import ElectraTokenizer

Both = tuple[ElectraTokenizer, Tokenizer]
# Names of choices of rules, as the constructor of ElectraTokenizer takes them.
RULES = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "keep accents": {"strip_accents": False},
    "keep words of ideographs": {"tokenize_chinese_chars": False},
    "cased, strip accents": {"do_lower_case": False, "strip_accents": True},
}


def build_oracle(
    vocab: dict[str, int],
    do_lower_case: bool = True,
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool = True,
) -> Tokenizer:
    oracle = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    oracle.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=do_lower_case,
    )
    oracle.pre_tokenizer = BertPreTokenizer()
    oracle.add_special_tokens([token for token in SPECIAL if token in vocab])
    oracle.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return oracle


def build_both(vocab: dict[str, int], **rules: bool | None) -> Both:
    return ElectraTokenizer(vocab, **rules), build_oracle(vocab, **rules)


@cache
def cached_both(make_vocab, rules: str) -> Both:
    """Ours and the oracle for a function of vocabularies.py and one of RULES; do not add tokens to them."""
    return build_both(make_vocab(), **RULES[rules])


def assert_same(
    both: Both,
    texts: Sequence,
    pairs: Sequence | None = None,
    is_split_into_words: bool = False,
    add_special_tokens: bool = True,
) -> None:
    """Ids, types, masks, offsets and words of every text, by a call; of single texts ids by encode_bulk too."""
    ours, oracle = both
    encodings = oracle.encode_batch(
        list(texts) if pairs is None else list(zip(texts, pairs, strict=True)),
        is_pretokenized=is_split_into_words,
        add_special_tokens=add_special_tokens,
    )
    batch = ours(
        list(texts),
        None if pairs is None else list(pairs),
        is_split_into_words=is_split_into_words,
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    rows = range(len(texts))
    columns = {
        "ids": batch["input_ids"],
        "offsets": batch["offset_mapping"],
        "word_ids": [batch.word_ids(row) for row in rows],
        "special_tokens_mask": batch["special_tokens_mask"],
        "type_ids": batch["token_type_ids"],
        "attention_mask": batch["attention_mask"],
        "sequence_ids": [batch.sequence_ids(row) for row in rows],
    }
    for name, actual in columns.items():
        expected = [getattr(encoding, name) for encoding in encodings]
        if actual != expected:
            row = next(row for row in rows if actual[row] != expected[row])
            inputs = ascii(texts[row]) if pairs is None else ascii((texts[row], pairs[row]))
            raise AssertionError(f"{name} of {inputs}\n{actual[row]}, but expected\n{expected[row]}")
    if pairs is None and not is_split_into_words:
        assert_same_in_bulk(ours, texts, columns["ids"], add_special_tokens)


def assert_same_in_bulk(
    ours: ElectraTokenizer, texts: Sequence[str], expected: list[list[int]], add_special_tokens: bool = True
) -> None:
    ids, row_offsets = ours.encode_bulk(list(texts), add_special_tokens)
    lengths = [len(row) for row in expected]
    if np.diff(row_offsets).tolist() == lengths and ids.tolist() == list(chain.from_iterable(expected)):
        return
    for row, text in enumerate(texts):
        actual = ids[row_offsets[row] : row_offsets[row + 1]].tolist()
        assert actual == expected[row], f"ids by encode_bulk of {text!a}"
    raise AssertionError(f"row_offsets of {len(texts)} texts: {row_offsets[:10]}, expected lengths {lengths[:10]}")
