"""The files of a tokenizer, and the `tokenizers` backend that they describe.

tokenizer.json is the whole backend and wins over vocab.txt. tokenizer_config.json holds what the backend does not know
(the longest sequence, the sides, the names of the special tokens), and settings that override the backend's normalizer.
special_tokens_map.json and added_tokens.json are read where older directories have them, and not written.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

from ..disk import made, read_json_object, written
from .arguments import check_flag
from .components import bert_frames, frames, simplify
from .vocabulary import SPECIAL_TOKENS, is_own_token

VOCAB_FILE, TOKENIZER_FILE, CONFIG_FILE = "vocab.txt", "tokenizer.json", "tokenizer_config.json"

# The normalizer's settings: their names in tokenizer_config.json, and its attributes.
NORMALIZER_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_FRAME_TOKENS = (("cls_token", "[CLS]"), ("sep_token", "[SEP]"))
_NO_EFFECT_ON_LOADING = ("use_fast", "trust_remote_code", "_commit_hash", "resume_download", "proxies")
# Tables of ids have a row for each id below the largest, also where ids have gaps.
_MOST_IDS = 1 << 24
# Unicode's White_Space.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
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
    """Reads a vocab.txt as transformers does: a line's number from 0 is its token's id.

    Space after a token does not count, and the last of equal lines has the token, blank ones included. Such a file
    leaves ids without a token.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} must be a {VOCAB_FILE}, got a directory; from_pretrained reads directories")
    # splitlines() and rstrip() know other ends and other spaces than the library behind transformers.
    try:
        lines = Path(path).read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text with one token per line, got: {error}") from error
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise ValueError(f"{path} must hold one token per line, but it is empty")
    return {line.rstrip(_SPACE): index for index, line in enumerate(lines)}


def write_vocab(vocab: dict[str, int], path: str | os.PathLike) -> None:
    """Writes a vocab.txt; raises ValueError for ids with gaps, since line numbers have none."""
    tokens = sorted(vocab, key=vocab.__getitem__)
    for line, token in enumerate(tokens):
        if vocab[token] != line:
            raise ValueError(
                f"ids must be 0 to {len(tokens) - 1} without gaps for the lines of a {Path(path).name}, got "
                f"{vocab[token]} for {token!r} and none that is {line}; {TOKENIZER_FILE} can hold such ids"
            )
    with written(path, "wb") as file:
        file.write("".join(f"{token}\n" for token in tokens).encode("utf-8"))


def build_backend(
    vocab: Mapping[str, int],
    unk_token: str,
    do_lower_case: bool,
    tokenize_chinese_chars: bool,
    strip_accents: bool | None,
) -> Tokenizer:
    """A backend with BERT's WordPiece over a vocabulary, as yet without special tokens."""
    try:
        model = WordPiece(dict(vocab), unk_token=unk_token)
    except (TypeError, OverflowError):
        odd = [pair for pair in vocab.items() if not (isinstance(pair[0], str) and isinstance(pair[1], int))]
        got = odd[0] if odd else f"ids from {min(vocab.values())} to {max(vocab.values())}"
        raise ValueError(f"vocab must map tokens, each a str, to ids of at least 0, got {got!r:.80}") from None
    backend = Tokenizer(model)
    backend.normalizer = BertNormalizer()
    settings = (do_lower_case, strip_accents, tokenize_chinese_chars)
    apply_settings(backend, dict(zip(NORMALIZER_SETTINGS, settings, strict=True)))
    backend.pre_tokenizer = BertPreTokenizer()
    return backend


def check_ids(backend: Tokenizer) -> None:
    """Raises ValueError if an id stands for two tokens, of which the library keeps one, or is too large."""
    tokens: dict[int, str] = {}
    for token, index in backend.get_vocab(with_added_tokens=False).items():
        if tokens.setdefault(index, token) != token:
            raise ValueError(f"each token must have an id of its own, but {tokens[index]!r} and {token!r} have {index}")
    if max(tokens, default=0) >= _MOST_IDS:
        raise ValueError(f"ids must be below {_MOST_IDS}, got {max(tokens)} for {tokens[max(tokens)]!r:.80}")


def frame_with(backend: Tokenizer, cls_token: str | None, sep_token: str | None) -> None:
    """Makes a backend frame texts as [CLS] A [SEP] and pairs as [CLS] A [SEP] B [SEP], where B has type 1."""
    if not cls_token or not sep_token:
        raise ValueError(f"texts need a cls_token and a sep_token around them, got {cls_token!r} and {sep_token!r}")
    backend.post_processor = TemplateProcessing(
        single=[cls_token, "$A", sep_token],
        pair=f"{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1".split(" "),
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls_token, sep_token)],
    )


def empty_copy(backend: Tokenizer) -> Tokenizer:
    """A backend with the same rules but without vocabulary, added tokens and frame, all of which hold ids."""
    model = json.loads(backend.to_str())["model"] | {"vocab": {}}
    return _copy_with(backend, model=model, added_tokens=[], post_processor=None)


def _copy_with(backend: Tokenizer, **parts: Any) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(json.loads(backend.to_str()) | parts))


def add_decoded(backend: Tokenizer, decoder: Mapping[int | str, AddedToken]) -> None:
    """Adds the tokens of an added_tokens_decoder, in the order of their ids, as far as the backend lacks them."""
    for token in _by_id(decoder).values():
        if token.content not in {other.content for other in backend.get_added_tokens_decoder().values()}:
            backend.add_tokens([token])


def _are_added(backend: Tokenizer, decoder: Mapping[int | str, AddedToken]) -> bool:
    ours, theirs = backend.get_added_tokens_decoder(), _by_id(decoder)
    return {index: repr(token) for index, token in ours.items()} == {i: repr(token) for i, token in theirs.items()}


def _by_id(decoder: Mapping[int | str, AddedToken]) -> dict[int, AddedToken]:
    if not isinstance(decoder, Mapping) or not all(isinstance(token, AddedToken) for token in decoder.values()):
        raise TypeError(f"added_tokens_decoder must map ids to AddedToken or their contents, got {decoder!r:.80}")
    try:
        return dict(sorted(((int(i), token) for i, token in decoder.items()), key=itemgetter(0)))
    except (TypeError, ValueError):
        raise ValueError(f"added_tokens_decoder must have ids as keys, got {', '.join(map(str, decoder))}") from None


def read_backend(path: str | os.PathLike) -> Tokenizer:
    """Reads a tokenizer.json whose components are BERT's, or the same."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be a {TOKENIZER_FILE}; there is no such file")
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path} must be a {TOKENIZER_FILE} of the tokenizers library, got: {error}") from error
    if not isinstance(backend.model, WordPiece):
        raise ValueError(f"{path} must hold a WordPiece model, got {type(backend.model).__name__}: another tokenizer's")
    check_ids(backend)
    simplify(backend)
    return backend


def apply_settings(backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Writes the normalizer's settings of a tokenizer_config.json or of a call into a backend."""
    normalizer = backend.normalizer
    for name, attribute in NORMALIZER_SETTINGS.items():
        if name in settings:
            value = settings[name]
            check_flag(name, value, or_none=name == "strip_accents")
            setattr(normalizer, attribute, None if value is None else bool(value))
    backend.normalizer = normalizer


def tell_own_rules(path: Path, backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Warns of rules in a tokenizer.json that transformers' class, which does not read them there, replaces.

    One warning names them all, but none that tokenizer_config.json or a keyword settles.
    """
    normalizer, model = BertNormalizer(), WordPiece(unk_token=str(settings.get("unk_token", "[UNK]")))
    rules = [(backend.normalizer, normalizer, attribute, name) for name, attribute in NORMALIZER_SETTINGS.items()]
    rules.append((backend.normalizer, normalizer, "clean_text", None))
    rules.append((backend.model, model, "max_input_chars_per_word", "max_input_chars_per_word"))
    rules += [(backend.model, model, attribute, None) for attribute in ("unk_token", "continuing_subword_prefix")]
    own = []
    for ours, theirs, attribute, name in rules:
        if getattr(ours, attribute) != getattr(theirs, attribute) and name not in settings:
            way = f"; {name} settles it" if name else ""
            own.append(f"{attribute}={getattr(ours, attribute)} (there {getattr(theirs, attribute)}{way})")
    cls_token, sep_token = (settings.get(name, default) for name, default in _FRAME_TOKENS)
    ends = [backend.token_to_id(str(token)) for token in (cls_token, sep_token)]
    if backend.post_processor is not None and frames(backend) != bert_frames(*ends):
        own.append(f"tokens around texts (there {cls_token} A {sep_token} and {cls_token} A {sep_token} B {sep_token})")
    if own:
        warnings.warn(
            f"{path} has rules that hold here, where transformers' ElectraTokenizer takes others: {', '.join(own)}",
            stacklevel=3,
        )


def read_settings(find: Callable[[str], Path | None], given: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The constructor's keyword arguments that a directory's files ask for, and those given, which win.

    As in transformers, special_tokens_map.json wins over tokenizer_config.json. Neither it nor added_tokens.json nor
    the added tokens of tokenizer.json count where tokenizer_config.json has added_tokens_decoder.

    Args:
        find: gives a file's path by its name, or None where there is none.

    Returns:
        The arguments, and whether their added tokens are all that the tokenizer has.
    """
    settings = {name: value for name, value in _read_json(find(CONFIG_FILE)).items() if name not in _NOT_SETTINGS}
    settings |= given
    if not settings.get("extra_special_tokens") and "additional_special_tokens" in settings:
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    own = {name: settings.pop(name) for name in list(settings) if is_own_token(name, settings[name])}
    if own:
        settings["model_specific_special_tokens"] = {**settings.get("model_specific_special_tokens", {}), **own}
    _part_named(settings)
    is_whole = "added_tokens_decoder" in settings
    if not is_whole:
        for name, value in _read_json(find("special_tokens_map.json")).items():
            if name == "extra_special_tokens" and isinstance(value, list):
                earlier = settings.get(name) or []
                value = [*earlier, *(token for token in value if token not in earlier)]
            if not given.get(name):
                settings[name] = value
        _part_named(settings)
        settings = {name: _with_added_tokens(value) for name, value in settings.items()}
        settings["added_tokens_decoder"] = _read_added(find("added_tokens.json"), settings)
    if "additional_special_tokens" in settings:
        settings.setdefault("extra_special_tokens", settings.pop("additional_special_tokens"))
    return {name: _with_added_tokens(value) for name, value in settings.items()}, is_whole


def _part_named(settings: dict[str, Any]) -> None:
    """Parts extra special tokens that have names from those without."""
    if isinstance(settings.get("extra_special_tokens"), dict):
        named = settings.pop("extra_special_tokens")
        settings["model_specific_special_tokens"] = {**settings.get("model_specific_special_tokens", {}), **named}


def _read_added(path: Path | None, settings: Mapping[str, Any]) -> dict[int, AddedToken]:
    extra = settings.get("extra_special_tokens")
    extra = extra if isinstance(extra, (list, tuple)) else ()  # the constructor refuses what is neither
    special = {str(settings.get(name)) for name in SPECIAL_TOKENS} | {str(token) for token in extra}
    tokens = _read_json(path)
    for token, index in tokens.items():
        if not isinstance(index, int):
            raise ValueError(f"{path} must map tokens to ids, got {index!r:.80} for {token!r:.80}")
    return {index: AddedToken(t, normalized=t not in special, special=t in special) for t, index in tokens.items()}


def _with_added_tokens(value: Any) -> Any:
    """Turns {"content": ...} into AddedToken, at any depth."""
    if isinstance(value, dict) and "content" in value:
        try:
            return AddedToken(**{k: v for k, v in value.items() if k not in ("__type", "id")})
        except TypeError as error:
            raise ValueError(
                f"an added token must have text as content, True or False as the rest, got: {error}"
            ) from error
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
    """Writes tokenizer.json, tokenizer_config.json and, where the ids allow it, vocab.txt; returns their paths.

    Raises:
        ValueError: a component that is not BERT's, which was put into the backend after it was made.
    """
    simplify(backend)
    paths = [path_in(directory, name, prefix) for name in (CONFIG_FILE, TOKENIZER_FILE, VOCAB_FILE)]
    content = {name: value for name, value in settings.items() if value not in (None, [])}
    normalizer = backend.normalizer
    content |= {name: getattr(normalizer, attribute) for name, attribute in NORMALIZER_SETTINGS.items()}
    content["tokenizer_class"] = "ElectraTokenizer"
    text = json.dumps(_as_json(content), indent=2, sort_keys=True, ensure_ascii=False)
    for path, content in zip(paths, (text + "\n", backend.to_str(pretty=True)), strict=False):
        with written(path) as file:
            file.write(content)
    try:
        write_vocab(backend.get_vocab(with_added_tokens=False), paths[2])
    except ValueError:  # tokenizer.json holds the vocabulary too, and readers prefer it
        paths.pop()
    return tuple(str(path) for path in paths)


def path_in(directory: str | os.PathLike, name: str, prefix: str | None) -> Path:
    """Path of a file in a directory; creates the directory if need be."""
    return Path(made(directory), f"{prefix}-{name}" if prefix else name)


def _read_json(path: Path | None) -> dict[str, Any]:
    return {} if path is None else read_json_object(path)


class Files:
    """`from_pretrained`, `save_pretrained` and the other methods of `ElectraTokenizer` that read or write files."""

    _tokenizer: Tokenizer
    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": VOCAB_FILE, "tokenizer_file": TOKENIZER_FILE}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Reads a directory or a repository on the Hub: tokenizer.json or else vocab.txt, and tokenizer_config.json.

        The path of tokenizer.json or vocab.txt itself stands for a directory with that file alone.

        Accepts the Hub options of `electra_fast.hub.files.find_file` (revision, token, cache_dir, subfolder, ...);
        other keyword arguments are the constructor's and override the files.
        """
        from ..hub.files import HUB_OPTIONS, find_file

        options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        for name in _NO_EFFECT_ON_LOADING:
            kwargs.pop(name, None)
        name = os.fspath(pretrained_model_name_or_path)
        find: Callable[[str], Path | None] = partial(find_file, name, required=False, **options)
        if os.path.isfile(name):
            find = {TOKENIZER_FILE if name.endswith(TOKENIZER_FILE) else VOCAB_FILE: Path(name)}.get
        settings, is_whole = read_settings(find, kwargs)
        if (path := find(TOKENIZER_FILE)) is not None:
            backend = read_backend(path)
            if is_whole and not _are_added(backend, settings["added_tokens_decoder"]):
                backend = _copy_with(backend, added_tokens=[])
            tell_own_rules(path, backend, settings)
            apply_settings(backend, settings)
            settings.setdefault("unk_token", backend.model.unk_token)
            settings["tokenizer_object"] = backend
        else:
            settings["vocab"] = find(VOCAB_FILE) or find_file(name, VOCAB_FILE, **options)
        return cls(**settings | {"name_or_path": name})

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
            push_directory(save_directory, repo_id, files=[Path(path).name for path in paths], **kwargs)
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
            paths = self.save_pretrained(directory)
            return push_directory(directory, repo_id, files=[Path(path).name for path in paths], **kwargs)

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
