"""Writes unicode_tables.inc, the results of the `tokenizers` library for each code point.

BERT's rules rest on the Unicode tables of several Rust crates of different ages; no single edition of Unicode gives
them all. So every code point is put through the library's own normalizers. Two properties come from Python instead:
cased and case-ignorable, which only `final_sigma` needs, since it does what Python's str.lower does.

    python csrc/tokenizer/make_unicode_tables.py > csrc/tokenizer/unicode_tables.inc
"""

import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

HANGUL = range(0xAC00, 0xD7A4)  # decompose by arithmetic
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def bert(**rules: bool) -> BertNormalizer:
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return BertNormalizer(**(off | rules))


CLEAN, CHINESE = bert(clean_text=True), bert(handle_chinese_chars=True)
STRIP, LOWER = bert(strip_accents=True), bert(lowercase=True)
DECOMPOSE, SPLIT = NFD(), BertPreTokenizer()
WHOLE_WORD = Tokenizer(WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
WHOLE_WORD.add_tokens([AddedToken("token", single_word=True, normalized=False)])
HIGH, LOW = "\u0345", "\u0334"  # combining classes 240 and 1


def is_starter(c: str) -> bool:
    """Tells whether marks stay on their side of c, whatever their classes."""
    return DECOMPOSE.normalize_str(HIGH + c + LOW) == HIGH + DECOMPOSE.normalize_str(c) + LOW


REFERENCES: dict[int, str] = {}
for code_point in CODE_POINTS:
    if not is_starter(chr(code_point)):
        REFERENCES.setdefault(unicodedata.combining(chr(code_point)), chr(code_point))


def combining_class(c: str) -> int:
    """The class by which canonical ordering sorts c; 0 for a starter, which no mark passes."""
    if is_starter(c) or DECOMPOSE.normalize_str(c) != c:
        return 0
    value = unicodedata.combining(c)
    for other, mark in REFERENCES.items():
        swapped = DECOMPOSE.normalize_str(mark + c) == c + mark
        assert swapped == (other > value) or c == mark, (hex(ord(c)), other, value)
    return value


def properties(code_point: int) -> int:
    c = chr(code_point)
    cleaned = {"": 1, " ": 2}.get(CLEAN.normalize_str(c), 0)
    cjk = CHINESE.normalize_str(c) != c
    words = [word for word, _ in SPLIT.pre_tokenize_str(f"a{c}a")]
    split = {1: 0, 3: 1, 2: 2}[len(words)]
    mark = STRIP.normalize_str(c) == "" and DECOMPOSE.normalize_str(c) == c
    # Python's final sigma follows a cased character, and no cased one follows it; case-ignorable ones do not count.
    cased = (c + "\u03a3").lower().endswith("\u03c2")
    ignorable = not cased and ("A" + c + "\u03a3").lower().endswith("\u03c2")
    # The encoder relies on this: a text gets at most as many characters as it has bytes, and three times its bytes.
    assert max(len(LOWER.normalize_str(part)) for part in (c, STRIP.normalize_str(c))) <= len(c.encode()), hex(
        code_point
    )
    word = 1 not in WHOLE_WORD.encode(c + "token").ids
    bits = cleaned | cjk << 2 | split << 3 | mark << 5 | cased << 6 | ignorable << 7 | word << 8
    return bits | combining_class(c) << 9


def table(name: str, kind: str, rows: list[str]) -> None:
    print(f"constexpr {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        if len(line) + len(row) > 116:
            print(line)
            line = "   "
        line += f" {row},"
    print(line)
    print("};\n")


def mappings(name: str, change: BertNormalizer | NFD, skip: range) -> None:
    rows = []
    for code_point in CODE_POINTS:
        changed = change.normalize_str(chr(code_point))
        if changed != chr(code_point) and code_point not in skip:
            assert 1 <= len(changed) <= 4, hex(code_point)
            rows.append(f"{{0x{code_point:x}, {{{', '.join(f'0x{ord(c):x}' for c in changed)}}}}}")
    table(name, "Mapping", rows)


def main() -> None:
    print(f"// Written by make_unicode_tables.py from tokenizers {tokenizers.__version__}; do not edit.\n")
    print("// Properties from each code point on, up to the next row: see Properties in characters.cpp.")
    runs, previous = [], None
    for code_point in CODE_POINTS:
        value = properties(code_point)
        if value != previous:
            runs.append(f"{{0x{code_point:x}, 0x{value:x}}}")
            previous = value
    table("kProperties", "Run", runs)
    print("// Canonical decomposition, without Hangul syllables.")
    mappings("kDecompositions", DECOMPOSE, HANGUL)
    print("// Lower case.")
    mappings("kLowerCase", LOWER, range(0))
    for syllable in HANGUL:
        first, rest = divmod(syllable - HANGUL.start, 588)
        second, third = divmod(rest, 28)
        jamo = [0x1100 + first, 0x1161 + second] + [0x11A7 + third] * (third > 0)
        assert DECOMPOSE.normalize_str(chr(syllable)) == "".join(map(chr, jamo))


if __name__ == "__main__":
    sys.exit(main())
