"""The subcommand `predict`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..disk import check_apart, check_readable, check_writable
from ..inference.batching import BATCH_TOKENS, Counts
from .bulk import timed, written_objects
from .options import Device, ImplOption, PrecisionOption

if TYPE_CHECKING:
    from ..finetuning.data.tasks import Columns


@dataclass(kw_only=True)
class PredictCommand:
    """Say what a fine-tuned network predicts for one text or for millions.

    Prints a JSON object for each line or row, blank ones included, in the order of the input, and at the end the speed
    on stderr. A few thousand examples at a time are sorted by length, so results come in portions. Under torchrun all
    processes share the work.
    """

    model: str
    """A directory written by `finetune` or transformers, or a model on the Hub."""
    input: Path | None = None
    """A file of lines of text (a tab separates a pair), or of columns: .tsv, .csv, .jsonl or .parquet. For tagging also
    CoNLL (.conll, .bio, .iob, .iob2, .tsv, and any name with --words) or CoNLL-U (.conllu); for questions SQuAD's JSON.
    Files may be compressed: .gz, .xz, .zst. Default: lines of the standard input: texts, sentences with white
    space between words, or {"question": ..., "context": ...}."""
    text: str | None = None
    """The column of the text: a name, or a number from 0 with --no-header."""
    pair: str | None = None
    """The column of the second text of a pair."""
    words: str | None = None
    """The column of the words to tag: in CoNLL a number (default: 0), in JSONL the name of the lists. With it, a .txt
    file is CoNLL."""
    start: str | None = None
    """The column of the text before every ending, for choices."""
    endings: tuple[str, ...] = ()
    """The columns of the endings, for choices. Default: those of SWAG."""
    id: str | None = None
    """The column of the examples' ids. Default: their numbers, from 0."""
    no_header: bool = False
    """Read the first line of a table as an example; columns are then numbers."""
    output: Path | None = None
    """The file to write, whole or not at all: lines of JSON, or .parquet; or a pipe or a device. Default: the standard
    output."""
    batch_tokens: int = BATCH_TOKENS
    """Number of tokens to compute together."""
    device: Device = "auto"
    impl: ImplOption = "auto"
    precision: PrecisionOption = None

    def run(self) -> None:
        from ..finetuning.data.predict_inputs import read_examples
        from ..finetuning.kinds.table import kind_name
        from ..finetuning.prediction import load_for_prediction, predict
        from ..training.distributed import join

        if self.output is not None:
            check_writable(self.output)
        if self.input is not None:
            check_readable(self.input)
        check_apart(self.output or 1, self.input or 0, self.model)
        with join(self.device) as world:
            if world.size > 1 and (self.input is None or not self.input.is_file()):
                raise ValueError(f"several processes need a file that each can read (--input), got {self.input}")
            finetuned = load_for_prediction(self.model, device=world.device, precision=self.precision, impl=self.impl)
            examples = read_examples(kind_name(finetuned.kind), self.input, self._columns())
            shows_bar = sys.stderr.isatty() and not (self.output is None and sys.stdout.isatty())
            with timed("examples") if world.is_main else nullcontext(Counts()) as counts:
                predictions = predict(
                    finetuned,
                    examples,
                    batch_tokens=self.batch_tokens,
                    progress=shows_bar,
                    world=world,
                    counts=counts,
                )
                fields = finetuned.kind.fields()
                with written_objects(self.output, fields) if world.is_main else nullcontext() as write:
                    for prediction in predictions:
                        write(prediction)

    def _columns(self) -> Columns:
        from ..finetuning.data.tasks import Columns, number_or_name

        names = {name: getattr(self, name) for name in ("text", "pair", "id", "start")}
        endings = self.endings
        if self.no_header:
            names = {name: None if column is None else number_or_name(column) for name, column in names.items()}
            endings = tuple(map(number_or_name, endings))
        words = None if self.words is None else number_or_name(self.words)
        return Columns(**names, words=words, endings=endings, has_header=not self.no_header)
