"""transformers as the peer that our speed is compared with."""

from __future__ import annotations

from pathlib import Path

from torch import nn


def load_theirs(directory: Path) -> nn.Module:
    """transformers' own model of a discriminator's directory, in evaluation mode; no progress bar is drawn."""
    from transformers import AutoModelForPreTraining
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForPreTraining.from_pretrained(directory).eval()
