"""What turns text into tokens: the C++ of csrc/tokenizer or, on a platform that it is not built for, library.py."""

from __future__ import annotations

import warnings

from tokenizers import Tokenizer

from ..processor import INSTRUCTION_SETS, fastest_allowed

try:
    from .._tokenizer import INSTRUCTION_SETS as AVAILABLE_SETS
    from .._tokenizer import Batch, Column, Encoder, Frame, Rules, Side, Strategy, Truncation, are_texts
except ImportError as error:
    from .library import Batch, Column, Encoder, Frame, Side, Strategy, Truncation, are_texts

    obstacle: str | None = f"the extension electra_fast._tokenizer is not built: {error}"
    """The reason why the C++ is not there; None where it is."""
else:
    obstacle = None

__all__ = [
    "Batch",
    "Column",
    "Encoder",
    "Frame",
    "Side",
    "Strategy",
    "Truncation",
    "are_texts",
    "make_encoder",
    "obstacle",
]


def make_encoder(backend: Tokenizer, final_sigma: bool, split_special: bool) -> Encoder:
    """An encoder with the rules of a backend of BERT's form; see `NativeEncoder`."""
    if obstacle:
        warnings.warn(
            f"texts are encoded by the tokenizers package, with the same results but many times slower: {obstacle}",
            stacklevel=2,
        )
        return Encoder(backend, final_sigma, split_special)
    model, normalizer = backend.model, backend.normalizer
    strips = normalizer.lowercase if normalizer.strip_accents is None else normalizer.strip_accents
    # Special tokens come first: the library takes the first of two tokens with the same content.
    added = sorted(backend.get_added_tokens_decoder().items(), key=lambda item: (not item[1].special, item[0]))
    raw, normalized = {}, {}
    for index, token in added:
        content = normalizer.normalize_str(token.content) if token.normalized else token.content
        flags = (token.single_word, token.lstrip, token.rstrip, token.special)
        if not content:
            raise ValueError(f"the added token {token.content!r} must not be empty once it is normalized")
        (normalized if token.normalized else raw).setdefault(content, (content, index, *flags))
    return Encoder(
        vocabulary=list(backend.get_vocab(with_added_tokens=False).items()),
        continuing_prefix=model.continuing_subword_prefix,
        unknown_id=backend.token_to_id(model.unk_token),
        longest_word=model.max_input_chars_per_word,
        rules=Rules(
            clean_text=normalizer.clean_text,
            handle_chinese_chars=normalizer.handle_chinese_chars,
            strip_accents=strips,
            lowercase=normalizer.lowercase,
            final_sigma=final_sigma,
        ),
        raw_tokens=list(raw.values()),
        normalized_tokens=list(normalized.values()),
        split_special=split_special,
        instruction_set=_instruction_set(),
    )


def _instruction_set() -> str:
    """The fastest instruction set that is allowed and that this processor has."""
    allowed = INSTRUCTION_SETS[INSTRUCTION_SETS.index(fastest_allowed()) :]
    return next(name for name in AVAILABLE_SETS if name in allowed)
