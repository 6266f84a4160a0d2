"""Added tokens within text, of every kind and in every neighbourhood: the same results as from a `tokenizers.Tokenizer`
with the same added tokens."""

import itertools
import random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracle import RULES, assert_same, build_both, cached_both
from tokenizers import AddedToken
from vocabularies import SENTENCES, small_vocab, wide_vocab

from electra_fast.tokenizer import ElectraTokenizer

FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
KINDS = [dict(zip(FLAGS, values, strict=True)) for values in itertools.product((False, True), repeat=4)]
CONTENTS = ["New York", "É", "e\u0301", "İ", "日本", "日", "é\u00a0é", "ᄀ"]
CONTENTS += ["ab", "abc", "b c", "[X]", "cat", "ing", "#", "a", " x", "y "]
# The tokens, parts of them, what they become, and what may stand around them.
FRAGMENTS = CONTENTS + ["AB", "aBc", "[x]", "new york", "NEW  YORK", "New\u00a0York", "[MASK]", "[SEP]", "[mask]"]
FRAGMENTS += ["é", "e", "E\u0301", "i\u0307", "\u0301", "\u00ad", "\x00", "²", "ǅ", "日本語", "本", "가"]
FRAGMENTS += ["dog", "d", "_", "7", "-", ".", "b", "c", "x", "y"]
SPACES = [" ", "  ", "\t", "\n", "\u00a0", "\u3000", "\u2028", "\x0b", "\x1f", "\x85", "\u200b", "\u00a0 "]


def unambiguous(oracle, tokens):
    """Without tokens that normalization makes equal to another's: which of the two is found then depends on a hash."""

    def found_as(token):
        return oracle.normalizer.normalize_str(token.content) if token.normalized else token.content

    owners = {found_as(token): token.content for token in oracle.get_added_tokens_decoder().values()}
    return [token for token in tokens if owners.setdefault(found_as(token), token.content) == token.content]


def add(both, tokens, special=False):
    """Adds tokens to both; a str becomes what each of them makes of it."""
    ours, oracle = both
    if any(isinstance(token, AddedToken) for token in tokens):
        tokens = unambiguous(oracle, tokens)
    expected = oracle.add_special_tokens(tokens) if special else oracle.add_tokens(tokens)
    assert ours.add_tokens(tokens, special_tokens=special) == expected
    return both


def texts_of_fragments(seed, count):
    chance = random.Random(seed)
    weights = [3] * len(FRAGMENTS) + [2] * len(SPACES)
    fragments = FRAGMENTS + SPACES
    return ["".join(chance.choices(fragments, weights, k=chance.randint(1, 7))) for _ in range(count)]


NEIGHBOURS = ["{0}", "{0}{0}", "{0} {0}", "a{0}b", " {0} ", "-{0}-", "é{0}é", "_{0}1", "中{0}中", "dog  {0}  fox"]
NEIGHBOURS += [
    "{0}[MASK]{0}",
    "\u3000{0}\u2003",
    "\n\n{0}\xa0x",
    "{0}\u0301",
    "\u0301{0}",
    "\x00{0}\x00",
    "\x85{0}\x1f",
]


@pytest.mark.parametrize("special", [False, True], ids=["plain", "special"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(name for name in FLAGS if kind[name]) or "none")
def test_every_kind(kind, special):
    texts = [form.format(content) for form in NEIGHBOURS for content in FRAGMENTS] + texts_of_fragments(str(kind), 500)
    for rules in ("uncased", "cased", "keep accents"):
        both = build_both(wide_vocab(), **RULES[rules])
        add(both, [AddedToken(content, **kind) for content in CONTENTS], special)
        assert_same(both, texts)
        assert_same(both, texts[:50], texts[:50], add_special_tokens=False)


@pytest.mark.parametrize("seed", range(12))
def test_kinds_side_by_side(seed):
    """Kinds drawn for each token, in several calls, some tokens twice with other flags."""
    chance = random.Random(seed)
    both = build_both(wide_vocab(), **RULES[chance.choice(list(RULES))])
    for call in range(4):
        tokens = [AddedToken(content, **chance.choice(KINDS)) for content in chance.sample(CONTENTS, 6)]
        add(both, tokens, special=chance.random() < 0.5)
        assert_same(both, texts_of_fragments(f"{seed} {call}", 400))


def panics(oracle, texts):
    """Whether `tokenizers` fails at a token that begins in the white space that another has taken along."""
    try:
        oracle.encode_batch(texts)
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            return True
        raise
    return False


kinds = st.fixed_dictionaries({name: st.booleans() for name in FLAGS})
spaces_and_fragments = st.sampled_from(FRAGMENTS + SPACES)
contents = st.sampled_from(CONTENTS) | st.lists(spaces_and_fragments, min_size=1, max_size=3).map("".join)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rules=st.sampled_from(list(RULES)),
    tokens=st.lists(st.tuples(contents, kinds, st.booleans()), min_size=1, max_size=5),
    fragments=st.lists(st.lists(spaces_and_fragments, max_size=8), min_size=1, max_size=5),
    add_special_tokens=st.booleans(),
)
def test_any_tokens_in_any_text(rules, tokens, fragments, add_special_tokens):
    both = build_both(small_vocab(), **RULES[rules])
    for content, kind, special in tokens:
        if both[1].normalizer.normalize_str(content):  # else see below
            add(both, [AddedToken(content, **kind)], special)
    texts = ["".join(parts) for parts in fragments]
    # Each text as it is, and with the tokens in it: between all fragments, and at both ends.
    texts += [content.join(parts) for parts in fragments for content, _, _ in tokens]
    texts += [f"{content}{text}{content}" for text in texts for content, _, _ in tokens[:2]]
    assert len(both[0](texts, return_offsets_mapping=True)["input_ids"]) == len(texts)
    assume(not panics(both[1], texts))
    assert_same(both, texts, add_special_tokens=add_special_tokens)
    assert both[0](texts)["input_ids"] == [encoding.ids for encoding in both[1].encode_batch(texts)]


def test_a_plain_token_and_what_normalization_makes_of_another():
    both = build_both(wide_vocab())
    add(both, [AddedToken("É"), AddedToken("e", normalized=False), AddedToken("E", normalized=False)])
    add(both, [AddedToken("ABC"), AddedToken("abc", normalized=False)])
    assert_same(both, ["É", "e\u0301", "é", "E", "e", "abc ABC aBc", "xÉx e\u0301e", "abcabc É"])


def test_a_token_that_normalization_empties():
    """It could be found nowhere, or everywhere; `tokenizers` panics at the first letter that is not ASCII."""
    tokenizer = ElectraTokenizer(wide_vocab())
    tokenizer.add_tokens(["\u0301"])
    with pytest.raises(ValueError, match="the added token '\u0301' must not be empty once it is normalized"):
        tokenizer("the dog")
    tokenizer = ElectraTokenizer(wide_vocab())
    tokenizer.add_tokens([AddedToken("\u0301", normalized=False)])
    assert tokenizer.tokenize("e\u0301") == ["e", "\u0301"]


def test_a_token_of_white_space():
    for content in (" ", "\u3000", "\n\n", " \t"):
        for kind in KINDS:
            both = add(build_both(small_vocab()), [AddedToken(content, **kind)])
            assert_same(both, ["a b", "the  dog", " ", "x\u3000y \u3000", "\n\n\na", "a \t\tb"])


@pytest.mark.parametrize("special", [False, True], ids=["plain", "special"])
def test_added_after_use(special):
    """A tokenizer that has seen a text, in every way to call it, sees it anew once a token of it is added."""
    both = build_both(wide_vocab())
    texts = ["New York, abc and ab", "日本語 É e\u0301", *SENTENCES, "fox" * 5] * 3
    for content in ("fox", "ab", "New York", "É", "日本", "abc", "##"):
        assert_same(both, texts)
        before = both[0](texts)["input_ids"]
        add(both, [content], special)
        assert_same(both, texts)
        after = both[0](texts)["input_ids"]
        assert after == [encoding.ids for encoding in both[1].encode_batch(texts)]
        assert after != before or content == "##"


def test_added_by_name():
    both = build_both(wide_vocab())
    for name, content in {"bos_token": "<s>", "mask_token": "<mask>", "extra_special_tokens": ["ab", "[X]"]}.items():
        both[1].add_special_tokens(content if isinstance(content, list) else [content])
        both[0].add_special_tokens({name: content})
        assert_same(both, ["<s>the <mask> dog [MASK]", "ab[X]abc[x]", "<S> <MASK>"])


SPECIALS = ["[MASK]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[mask]", "[ MASK ]", "[MASK", "MASK]", "[[MASK]]"]


@pytest.mark.parametrize("rules", RULES)
def test_special_tokens_that_users_type(rules):
    both = cached_both(wide_vocab, rules)
    texts = [form.format(special) for form in NEIGHBOURS for special in SPECIALS]
    assert_same(both, texts)
    assert_same(both, texts, add_special_tokens=False)
    assert_same(both, texts, texts[::-1])
    assert_same(both, [text.split(" ") for text in texts], is_split_into_words=True)


def test_special_tokens_taken_as_text():
    both = add(build_both(wide_vocab()), ["ab"])
    texts = [form.format(special) for form in NEIGHBOURS for special in (*SPECIALS, "ab")]
    for split in (True, False):
        both[0].backend_tokenizer.encode_special_tokens = both[1].encode_special_tokens = split
        assert_same(both, texts)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(name for name in FLAGS if kind[name]) or "none")
def test_words(kind):
    """With is_split_into_words each word stands for itself: no token reaches over its end."""
    both = build_both(wide_vocab())
    add(both, [AddedToken(content, **kind) for content in CONTENTS])
    chance = random.Random(0)
    rows = [chance.choices(texts_of_fragments(seed, 8), k=chance.randint(1, 5)) for seed in range(150)]
    rows += [["New", "York"], ["New York", "b c"], ["a", "b c"], [" ", "ab", ""], ["[X]", "[MASK]"], ["ab ", " ab"]]
    assert_same(both, rows, is_split_into_words=True)
    assert_same(both, rows, rows[::-1], is_split_into_words=True)
