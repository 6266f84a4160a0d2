"""The subcommands `detect` and `fill-mask`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..disk import STANDARD_INPUT, numbered_lines
from .console import print_json
from .options import Device, ImplOption

if TYPE_CHECKING:
    from ..bundled import Network
    from ..tokenizer import ElectraTokenizer


@dataclass(kw_only=True)
class _ModelCommand:
    model: str | None = None
    """A directory, or a model on the Hub. Default: the small English one that comes with the package."""
    device: Device = "auto"
    impl: ImplOption = "auto"
    json: bool = False
    """Print one JSON document."""
    texts: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT...", help_behavior_hint="")
    ] = ()
    """The texts. Default: the lines of the standard input; a blank one is an empty text."""

    def load(self, class_name: str, network: Network) -> tuple[Any, ElectraTokenizer]:
        """The model and its tokenizer; raises ValueError for a checkpoint that lacks a part of the model."""
        from ..bundled import bundled
        from ..model import modeling
        from ..model.base import prepack_if_served
        from ..model.pretrained import load_complete
        from ..tokenizer import ElectraTokenizer

        path, model_class = self.model or bundled(network), getattr(modeling, class_name)
        model = load_complete(model_class, path, f"an {class_name}", device_map=self.device, impl=self.impl)
        prepack_if_served(model)
        return model, ElectraTokenizer.from_pretrained(path)

    def read_texts(self) -> list[str]:
        texts = list(self.texts) or [line.rstrip("\r\n") for _, line in numbered_lines(None)]
        if not texts:
            raise ValueError(f"a text is needed, as an argument or a line of the {STANDARD_INPUT}; got none")
        return texts


@dataclass(kw_only=True)
class DetectCommand(_ModelCommand):
    """Tell which words of a text look replaced.

    Prints each text's words, and below them the probability that the word was replaced, in per cent, with a star where
    it is above the threshold; on a terminal also what that means. JSON has the tokens instead.
    """

    threshold: float | None = None
    """The probability above which a word or a token counts as replaced. Default: the one in the model's config.json,
    chosen on held-out text when it was pre-trained, or 0.5."""

    def run(self) -> None:
        from ..inference.calibration import Calibration
        from ..inference.detect import detect, format_table, word_cells

        texts = self.read_texts()
        model, tokenizer = self.load("ElectraForPreTraining", "discriminator")
        detections = detect(model, tokenizer, texts, self.threshold)
        if self.json:
            names = ("text", "tokens", "probabilities", "replaced")
            print_json([{name: getattr(detection, name) for name in names} for detection in detections])
            return
        is_terminal = sys.stdout.isatty()
        is_coloured = is_terminal and "NO_COLOR" not in os.environ
        print("\n\n".join(format_table(word_cells(detection), is_coloured=is_coloured) for detection in detections))
        if is_terminal:
            threshold = Calibration.of(model.config).threshold if self.threshold is None else self.threshold
            print(f"\n%: the probability that a word was replaced; *: above {threshold:.0%}")


@dataclass(kw_only=True)
class FillMaskCommand(_ModelCommand):
    """Give the likeliest tokens, by the generator, at every [MASK] of a text."""

    top_k: int = 5
    """Number of tokens to give for each mask."""

    def run(self) -> None:
        from ..inference.detect import fill_mask

        texts = self.read_texts()
        fillings = fill_mask(*self.load("ElectraForMaskedLM", "generator"), texts, self.top_k)
        if self.json:
            keys = ("token", "probability")
            masks = [[[dict(zip(keys, best, strict=True)) for best in mask] for mask in f.masks] for f in fillings]
            print_json([{"text": f.text, "masks": m} for f, m in zip(fillings, masks, strict=True)])
            return
        for filling in fillings:
            print(filling.text)
            for number, mask in enumerate(filling.masks, start=1):
                if len(filling.masks) > 1:
                    print(f"  mask {number}")
                for token, probability in mask:
                    print(f"    {probability:6.4f}  {token}")
