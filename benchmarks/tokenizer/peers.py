"""The tokenizers that are measured: electra_fast and its peers, each with a method for each kind of work it can do.

`transformers` is `tokenizers` with lists or tensors around it. In `spans` `tokenizers` only makes its encodings:
reading the offsets out of them is not counted, which favours it. blingfire takes one text a call on one thread, knows
the vocabulary of the uncased BERT and no other, and adds no [CLS] and [SEP].
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from ...tokenizer import ElectraTokenizer
from .. import OURS

MAX_LENGTH = 512  # tokens, where `pairs` and `tensors` cut rows


class Provider(Protocol):
    """A tokenizer, built from a folder with tokenizer.json and vocab.txt.

    Args:
        folder: that folder.
        n_threads: for calls that take a number of threads; others read it from the environment.
    """

    module: str
    frames = True  # it adds [CLS] and [SEP]
    max_threads = float("inf")

    def __init__(self, folder: Path, n_threads: int): ...


class ElectraFast(Provider):
    module = "electra_fast"

    def __init__(self, folder: Path, n_threads: int):
        self.tokenizer, self.n_threads = ElectraTokenizer.from_pretrained(folder), n_threads
        self.ids([])  # what is made on first use belongs to the construction

    def ids(self, texts: list[str]) -> Any:
        return self.tokenizer.encode_bulk(texts, num_threads=self.n_threads)

    def spans(self, texts: list[str]) -> Any:
        return self.tokenizer.encode_bulk(texts, num_threads=self.n_threads, spans=True)

    def offset_lists(self, texts: list[str]) -> Any:
        return dict(self.tokenizer(texts, return_offsets_mapping=True, verbose=False))  # lists that are made when read

    def tensors(self, *texts: list[str]) -> Any:
        return self.tokenizer(*texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")

    pairs = tensors


class Transformers(Provider):
    module = "transformers"

    def __init__(self, folder: Path, n_threads: int):
        self.tokenizer = importlib.import_module(self.module).BertTokenizerFast.from_pretrained(folder)

    offset_lists, tensors, pairs = ElectraFast.offset_lists, ElectraFast.tensors, ElectraFast.pairs


class Tokenizers(Provider):
    module = "tokenizers"

    def __init__(self, folder: Path, n_threads: int):
        self.tokenizer = backend(folder)

    def ids(self, texts: list[str]) -> Any:
        return self.tokenizer.encode_batch_fast(texts)

    def spans(self, texts: list[str]) -> Any:
        return self.tokenizer.encode_batch(texts)


class Nanotoken(Provider):
    module = "nanotoken"

    def __init__(self, folder: Path, n_threads: int):
        bulk = importlib.import_module(self.module).Tokenizer(folder)
        self.bulk, self.tokenizer, self.parallel = bulk, bulk.as_hf(), n_threads > 1

    def ids(self, texts: list[str]) -> Any:
        return self.bulk.encode_batch(texts, parallel=self.parallel)

    tensors = ElectraFast.tensors


class FlashTokenizer(Provider):
    module = "flash_tokenizer"

    def __init__(self, folder: Path, n_threads: int):
        lower_case = ElectraTokenizer.from_pretrained(folder).do_lower_case
        flash = importlib.import_module(self.module).BertTokenizerFlash
        self.tokenizer, self.parallel = flash(str(folder / "vocab.txt"), lower_case).tokenizer, n_threads > 1

    def ids(self, texts: list[str]) -> Any:
        return self.tokenizer.batch_encode(texts, "longest", 1_000_000_000, self.parallel)  # rows are not filled up


class Blingfire(Provider):
    module = "blingfire"
    frames = False
    max_threads = 1

    def __init__(self, folder: Path, n_threads: int):
        self.blingfire = importlib.import_module(self.module)
        self.model = self.blingfire.load_model(str(Path(self.blingfire.__file__).with_name("bert_base_tok.bin")))
        self.unknown_id = ElectraTokenizer.from_pretrained(folder).unk_token_id

    def ids(self, texts: list[str]) -> Any:
        encode, model, unknown_id = self.blingfire.text_to_ids, self.model, self.unknown_id
        return [encode(model, text, len(text), unknown_id, True) for text in texts]


PEERS: dict[str, type[Provider]] = {
    "tokenizers": Tokenizers,
    "transformers": Transformers,
    "nanotoken": Nanotoken,
    "flash-tokenizer": FlashTokenizer,
    "blingfire": Blingfire,
}
PROVIDERS = {OURS: ElectraFast, **PEERS}


def backend(folder: Path, max_length: int | None = None) -> Tokenizer:
    """The folder's tokenizer of the library `tokenizers`, whose ids are the right ones."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation() if max_length is None else tokenizer.enable_truncation(max_length)
    return tokenizer


def rows_of_ids(result: Any) -> list[np.ndarray]:
    """The ids of each text without padding, from whatever a provider gives."""
    if hasattr(result, "keys"):
        columns = zip(result["input_ids"], result["attention_mask"], strict=True)
        return [np.asarray(ids)[np.asarray(mask) == 1] for ids, mask in columns]
    if isinstance(result, tuple):
        ids, offsets, *_ = result
        return np.split(ids, offsets[1:-1])
    return [np.asarray(getattr(row, "ids", row)) for row in result]
