"""Broken directories of a tokenizer, drawn at random, and what becomes of them; `python broken_files.py SEED SECONDS`.

Each draw has a seed, which is printed before it is tried: the last line of a process that died names what killed it.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from vocabularies import SENTENCES, small_vocab

from electra_fast import ElectraTokenizer

NAMES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt")
REFUSALS = (ValueError, TypeError, FileNotFoundError)
LONGEST = 60  # seconds, of one draw on a busy machine
MOST_MEMORY = 6 << 30
DEEP = '{"type":"Sequence","normalizers":[' * 3000 + "]}" * 3000
NUMBERS = [0, 1, -1, 2, 255, 2**24, 2**31 - 1, 2**31, 2**32, 2**61, 2**63 - 1, 2**63, 2**64, 10**30, 1e30, 1e308]
VALUES = [
    *NUMBERS,
    0.5,
    float("nan"),
    float("inf"),
    None,
    True,
    False,
    "",
    "a",
    "[CLS]",
    "[UNK]",
    "##",
    "##a",
    " ",
    "é",
]
VALUES += ["\ud800", "\x00", "x" * 10_000, "東", "BertNormalizer", "Sequence", "WordPiece", "BPE", "TemplateProcessing"]
VALUES += [[], {}, [[]], [{}], {"": {}}, ["a"] * 1000, {"content": "[CLS]"}, {"type": "Sequence"}, {"String": "a"}]
TEXTS = [*SENTENCES, "", " ", "[CLS] [MASK]a[SEP]", "x" * 300, "\x00\ufffd\u00ad", "e\u0301 İ ß 한국"]


def valid_directory(draw: random.Random, directory: Path) -> None:
    """Writes a tokenizer that works, with a choice of components."""
    tokenizer = ElectraTokenizer(small_vocab(), do_lower_case=draw.random() < 0.5)
    if draw.random() < 0.5:
        tokens = ["<a>", AddedToken("dog", lstrip=draw.random() < 0.5, single_word=draw.random() < 0.5)]
        tokenizer.add_tokens(tokens)
    tokenizer.save_pretrained(directory)
    tokenizer.save_vocabulary(str(directory))
    path, library = directory / "tokenizer.json", Tokenizer.from_file(str(directory / "tokenizer.json"))
    if draw.random() < 0.3:
        library.enable_truncation(draw.choice([1, 3, 8, 100]), stride=draw.choice([0, 1]))
    if draw.random() < 0.3:
        library.enable_padding(pad_to_multiple_of=draw.choice([None, 1, 8]))
    if draw.random() < 0.3:
        bert = normalizers.BertNormalizer(lowercase=False)
        library.normalizer = normalizers.Sequence([bert, normalizers.Lowercase()])
    if draw.random() < 0.3:
        splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.BertPreTokenizer()]
        library.pre_tokenizer = pre_tokenizers.Sequence(splits)
    library.save(str(path))
    special = {name: draw.choice(["[CLS]", {"content": "[SEP]"}]) for name in ("cls_token", "image_token")}
    (directory / "special_tokens_map.json").write_text(json.dumps(special))
    (directory / "added_tokens.json").write_text(json.dumps({"<b>": len(tokenizer)}))
    for name in draw.sample(NAMES, draw.choice([0, 0, 1, 2])):
        (directory / name).unlink()


def places(value: object) -> list[tuple[dict | list, object]]:
    """All places of a JSON value, as container and key."""
    found, todo = [], [value]
    while todo:
        container = todo.pop()
        inner = container.items() if isinstance(container, dict) else enumerate(container)
        # A vocabulary has more entries than all the rest: some of them will do.
        for key, part in list(inner)[:40]:
            found.append((container, key))
            if isinstance(part, dict | list):
                todo.append(part)
    return found


def changed(draw: random.Random, content: dict) -> None:
    """Changes one place of a JSON object."""
    if not (found := places(content)):
        content["added_tokens"] = draw.choice(VALUES)
        return
    container, key = draw.choice(found)
    kind = draw.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1:
        other, name = draw.choice(found)
        # What was deleted a moment ago is no place any more.
        container[key] = copy.deepcopy(other[name])
    elif kind == 2 and isinstance(container, dict):
        container[draw.choice([*map(str, NUMBERS), "type", "content", "self", "model_max_length", "a"])] = container[
            key
        ]
    elif kind == 3 and isinstance(container[key], int | float):
        container[key] = draw.choice([container[key] + 1, container[key] - 1, -container[key], *NUMBERS])
    elif kind == 4 and isinstance(container[key], list):
        container[key] = container[key] * draw.choice([0, 2, 50])
    else:
        container[key] = copy.deepcopy(draw.choice(VALUES))


def break_file(draw: random.Random, path: Path) -> None:
    """Changes values of a JSON file, or its bytes."""
    if path.suffix == ".json" and draw.random() < 0.85:
        content = json.loads(path.read_text())
        for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
            changed(draw, content)
        text = json.dumps(content)
        if draw.random() < 0.03:
            text = text.replace(draw.choice(["null", '"BertNormalizer"', "[]", "0"]), DEEP, 1)
        path.write_text(text)
        return
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 5, 50])):
        place = draw.randrange(len(data) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            data[place : place + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            data[place:place] = draw.choice([b'"', b"{", b"]", b",", b"\x00", b"\xff", b"\n", b"\r\n", b"9" * 5000])
        elif kind == 2:
            del data[place : place + draw.choice([1, 2, 10, 1000])]
        else:
            end = place + draw.choice([1, 10, 100])
            data[place:place] = data[place:end] * draw.choice([1, 3])
    path.write_bytes(data)


def tried(seed: int, directory: Path) -> str:
    """Draws, loads and uses one tokenizer; returns what became of it, "works" or the name of a refusal."""
    draw = random.Random(seed)
    valid_directory(draw, directory)
    present = [path for name in NAMES if (path := directory / name).exists()]
    for path in draw.sample(present, min(len(present), draw.choice([1, 1, 1, 2, 3]))):
        break_file(draw, path)
    try:
        tokenizer = ElectraTokenizer.from_pretrained(directory)
    except REFUSALS as error:
        assert "\n" not in str(error), f"a refusal of several lines: {error}"
        return type(error).__name__
    ids, starts = tokenizer.encode_bulk(TEXTS, add_special_tokens=False)
    assert len(starts) == len(TEXTS) + 1 and (len(ids) == 0 or 0 <= ids.min() <= ids.max() < tokenizer.n_ids)
    for options in (
        {},
        {"padding": True, "return_tensors": "np"},
        {"padding": "max_length"},
        {"truncation": True, "padding": True, "max_length": 7},
        {"truncation": True, "max_length": 6, "stride": 2, "return_overflowing_tokens": True},
    ):
        try:
            batch = tokenizer(TEXTS, return_offsets_mapping=True, **options)
            tokenizer(TEXTS, TEXTS[::-1], **options)
            assert len(batch["input_ids"]) >= len(TEXTS)
            tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
        except REFUSALS as error:
            assert "\n" not in str(error), f"a refusal of several lines: {error}"
    tokenizer.save_pretrained(directory / "again")
    again = ElectraTokenizer.from_pretrained(directory / "again")
    assert again.encode_bulk(TEXTS, add_special_tokens=False)[0].tolist() == ids.tolist(), "saved, it is another"
    return "works"


def main(seed: int, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    found: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        print("seed", seed, flush=True)
        signal.alarm(LONGEST)  # ends the process
        with TemporaryDirectory() as directory:
            try:
                found[tried(seed, Path(directory))] += 1
            except BaseException:  # the panics of `tokenizers`, too
                traceback.print_exc()
                sys.exit(1)
        seed += 1
    print(dict(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
