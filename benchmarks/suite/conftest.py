"""Fixtures of the suite: one thread, texts of Python's own documentation, the tokenizer of the package."""

from pydoc_data.topics import topics

import pytest
import torch

from electra_fast import ElectraTokenizer
from electra_fast.bundled import bundled

torch.set_num_threads(1)  # times on one thread vary less from run to run than on several


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Some 3,000 paragraphs; the same ones in every run of one Python."""
    paragraphs = (text for topic in sorted(topics) for text in topics[topic].split("\n\n"))
    return [" ".join(text.split()) for text in paragraphs if text.strip()]


@pytest.fixture(scope="session")
def sentences(texts) -> list[str]:
    return [sentence for text in texts for sentence in text.split(". ") if sentence.strip()]


@pytest.fixture(scope="session")
def tokenizer() -> ElectraTokenizer:
    return ElectraTokenizer.from_pretrained(bundled("discriminator"))
