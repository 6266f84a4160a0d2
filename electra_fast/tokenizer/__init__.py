"""Text to ids, with the API of transformers' fast tokenizers."""

from .tokenizer import ElectraTokenizer, ElectraTokenizerFast

__all__ = ["ElectraTokenizer", "ElectraTokenizerFast"]
