"""The files of a tokenizer, and the `tokenizers` backend that they describe.

tokenizer.json is the whole backend and wins over vocab.txt. tokenizer_config.json holds what the backend does not know
(the longest sequence, the sides, the names of the special tokens), and settings that override the backend's normalizer.
special_tokens_map.json and added_tokens.json are read where older directories have them, and not written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

VOCAB_FILE, TOKENIZER_FILE, CONFIG_FILE = "vocab.txt", "tokenizer.json", "tokenizer_config.json"

# The normalizer's settings: their names in tokenizer_config.json, and its attributes.
NORMALIZER_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_NO_EFFECT_ON_LOADING = ("use_fast", "trust_remote_code", "_commit_hash", "resume_download", "proxies")
# Keys that describe the file or the class that wrote it. Paths in a downloaded file must never be followed.
_NOT_SETTINGS = (
    "auto_map",
    "backend",
    "files_loaded",
    "init_inputs",
    "is_local",
    "local_files_only",
    "name_or_path",
    "processor_class",
    "special_tokens_map_file",
    "tokenizer_class",
    "tokenizer_file",
    "vocab",
    "vocab_file",
)


def read_vocab(path: str | os.PathLike) -> dict[str, int]:
    """Reads a vocab.txt: one token per line, whose number from 0 is the token's id."""
    # splitlines() would also split at U+2028 and others, which are tokens in some vocabularies.
    try:
        lines = Path(path).read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text with one token per line, got: {error}") from error
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise ValueError(f"{path} must hold one token per line, but it is empty")
    vocab: dict[str, int] = {}
    for index, token in enumerate(lines):
        if (first := vocab.setdefault(token, index)) != index:
            raise ValueError(
                f"{path} must hold each token once, but line {index + 1} repeats line {first + 1}, {token!r}"
            )
    return vocab


def write_vocab(vocab: dict[str, int], path: str | os.PathLike) -> None:
    """Writes a vocab.txt; raises ValueError for ids with gaps, since line numbers have none."""
    tokens = sorted(vocab, key=vocab.__getitem__)
    if [vocab[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError(
            f"{path} needs the ids 0 to {len(tokens) - 1} in use without gaps; keep {TOKENIZER_FILE} instead"
        )
    Path(path).write_bytes("".join(f"{token}\n" for token in tokens).encode("utf-8"))


def build_backend(
    vocab: dict[str, int], unk_token: str, do_lower_case: bool, tokenize_chinese_chars: bool, strip_accents: bool | None
) -> Tokenizer:
    """A backend with BERT's WordPiece over a vocabulary, as yet without special tokens."""
    backend = Tokenizer(WordPiece(vocab, unk_token=unk_token))
    backend.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=do_lower_case,
    )
    backend.pre_tokenizer = BertPreTokenizer()
    backend.decoder = WordPieceDecoder(prefix="##")
    return backend


def frame_with(backend: Tokenizer, cls_token: str, sep_token: str) -> None:
    """Makes a backend frame texts as [CLS] A [SEP] and pairs as [CLS] A [SEP] B [SEP], where B has type 1."""
    backend.post_processor = TemplateProcessing(
        single=[cls_token, "$A", sep_token],
        pair=f"{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1".split(" "),
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls_token, sep_token)],
    )


def empty_copy(backend: Tokenizer) -> Tokenizer:
    """A backend with the same rules but without vocabulary, added tokens and frame, all of which hold ids."""
    content = json.loads(backend.to_str())
    content["model"]["vocab"] = {}
    content["added_tokens"], content["post_processor"] = [], None
    return Tokenizer.from_str(json.dumps(content))


def read_backend(path: str | os.PathLike) -> Tokenizer:
    """Reads a tokenizer.json."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be a {TOKENIZER_FILE}; there is no such file")
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path} must be a {TOKENIZER_FILE} of the tokenizers library, got: {error}") from error
    if not isinstance(backend.model, WordPiece):
        raise ValueError(f"{path} must hold a WordPiece model, got {type(backend.model).__name__}: another tokenizer's")
    return backend


def apply_settings(backend: Tokenizer, settings: dict[str, Any]) -> None:
    """Writes the normalizer's settings of a tokenizer_config.json or of a call into a backend."""
    normalizer = backend.normalizer
    if isinstance(normalizer, BertNormalizer):
        for name, attribute in NORMALIZER_SETTINGS.items():
            if name in settings:
                setattr(normalizer, attribute, settings[name])
        backend.normalizer = normalizer


def read_settings(find: Callable[[str], Path | None]) -> dict[str, Any]:
    """The constructor's keyword arguments that a directory's files ask for.

    Args:
        find: gives a file's path by its name, or None where there is none.
    """
    settings = {name: value for name, value in _read_json(find(CONFIG_FILE)).items() if name not in _NOT_SETTINGS}
    for name, value in _read_json(find("special_tokens_map.json")).items():
        settings.setdefault(name, value)
    if "added_tokens_decoder" not in settings:
        added = _read_json(find("added_tokens.json"))
        settings["added_tokens_decoder"] = {index: {"content": token} for token, index in added.items()}
    return {name: _with_added_tokens(value) for name, value in settings.items()}


def _with_added_tokens(value: Any) -> Any:
    """Turns {"content": ...} into AddedToken, at any depth."""
    if isinstance(value, dict) and "content" in value:
        return AddedToken(**{k: v for k, v in value.items() if k not in ("__type", "id")})
    if isinstance(value, dict):
        return {k: _with_added_tokens(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_added_tokens(v) for v in value]
    return value


def _as_json(value: Any) -> Any:
    if isinstance(value, AddedToken):
        return {"__type": "AddedToken", **value.__getstate__()}
    if isinstance(value, dict):
        return {k: _as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(v) for v in value]
    return value


def write_directory(
    backend: Tokenizer, settings: dict[str, Any], directory: str | os.PathLike, prefix: str | None
) -> tuple[str, ...]:
    """Writes tokenizer.json, tokenizer_config.json and, where the ids allow it, vocab.txt; returns their paths."""
    paths = [path_in(directory, name, prefix) for name in (CONFIG_FILE, TOKENIZER_FILE, VOCAB_FILE)]
    content = {name: value for name, value in settings.items() if value not in (None, [])}
    normalizer = backend.normalizer
    if isinstance(normalizer, BertNormalizer):
        content |= {name: getattr(normalizer, attribute) for name, attribute in NORMALIZER_SETTINGS.items()}
    content["tokenizer_class"] = "ElectraTokenizer"
    text = json.dumps(_as_json(content), indent=2, sort_keys=True, ensure_ascii=False)
    paths[0].write_text(text + "\n", encoding="utf-8")
    backend.save(str(paths[1]))
    try:
        write_vocab(backend.get_vocab(with_added_tokens=False), paths[2])
    except ValueError:  # tokenizer.json holds the vocabulary too, and readers prefer it
        paths.pop()
    return tuple(str(path) for path in paths)


def path_in(directory: str | os.PathLike, name: str, prefix: str | None) -> Path:
    """Path of a file in a directory; creates the directory if need be."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    return Path(directory, f"{prefix}-{name}" if prefix else name)


def _read_json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must hold JSON, got: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


class Files:
    """`from_pretrained`, `save_pretrained` and the other methods of `ElectraTokenizer` that read or write files."""

    _tokenizer: Tokenizer
    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": VOCAB_FILE, "tokenizer_file": TOKENIZER_FILE}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Reads a directory or a repository on the Hub: tokenizer.json or else vocab.txt, and tokenizer_config.json.

        Accepts the Hub options of `electra_fast.hub.files.find_file` (revision, token, cache_dir, subfolder, ...);
        other keyword arguments are the constructor's and override the files.
        """
        from ..hub.files import HUB_OPTIONS, find_file

        options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        for name in _NO_EFFECT_ON_LOADING:
            kwargs.pop(name, None)
        name = os.fspath(pretrained_model_name_or_path)
        find = partial(find_file, name, required=False, **options)
        settings = {**read_settings(find), **kwargs}
        if (path := find(TOKENIZER_FILE)) is not None:
            backend = read_backend(path)
            apply_settings(backend, settings)
            if backend.padding is not None:
                settings.setdefault("padding_side", backend.padding["direction"])
            settings.setdefault("unk_token", backend.model.unk_token)
            settings["tokenizer_object"] = backend
        else:
            settings["vocab"] = find_file(name, VOCAB_FILE, **options)
        return cls(name_or_path=name, **settings)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> tuple[str, ...]:
        """Writes tokenizer.json, tokenizer_config.json and, if ids can be line numbers, vocab.txt.

        Returns:
            The paths of the files.
        """
        from ..hub.files import push_directory

        paths = write_directory(self._tokenizer, self._settings(), save_directory, filename_prefix)
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", Path(save_directory).name)
            push_directory(save_directory, repo_id, **kwargs)
        return paths

    def save_vocabulary(self, save_directory: str | os.PathLike, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes vocab.txt, without added tokens, into a directory; raises ValueError where its ids have gaps."""
        path = path_in(save_directory, VOCAB_FILE, filename_prefix)
        write_vocab(self._tokenizer.get_vocab(with_added_tokens=False), path)
        return (str(path),)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Uploads the files of `save_pretrained`; options are those of `electra_fast.hub.files.push_directory`."""
        from ..hub.files import push_directory

        with TemporaryDirectory() as directory:
            self.save_pretrained(directory)
            return push_directory(directory, repo_id, **kwargs)

    def train_new_from_iterator(
        self,
        text_iterator: Iterable,
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Iterable[str | AddedToken] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Trains a vocabulary on (lists of) texts; returns a tokenizer with this one's settings and special tokens."""
        backend = empty_copy(self._tokenizer)
        special = sorted(self.all_special_tokens, key=self.convert_tokens_to_ids) + list(new_special_tokens or [])
        trainer = WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, **kwargs)
        backend.train_from_iterator(text_iterator, trainer=trainer, length=length)
        extra = [*self._extra_special_tokens, *(new_special_tokens or [])]
        settings = {**self._settings(), "extra_special_tokens": extra}
        return type(self)(tokenizer_object=backend, **settings)
