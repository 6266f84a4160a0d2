"""Predictions that travel between processes: a fine-tuned network by its name, for `electra_fast.integrations`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..inference.bulk import check_text, kind_of
from ..inference.portable import Portable
from ..parquet import arrow_type, text_list, word_lists
from .data.examples import ChoiceExample, Example, QuestionExample, TaggedExample, TextExample
from .kinds.kind import Kind
from .kinds.table import kind_name
from .prediction import load_for_prediction, predict
from .saved import Finetuned, load_kind

if TYPE_CHECKING:
    import pyarrow

Row = str | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Predictor(Portable[Finetuned]):
    """What `electra-fast predict` computes, by name and options; errors are those of `load_finetuned`.

    kind                                     a row, and the columns of a table
    classification, regression, multilabel   text, or text and pair
    tagging                                  words: a list
    qa                                       question, context
    choice                                   text, what every ending begins with (or ""), endings

    Attributes:
        precision: "fp32", "bf16" or "fp16". Default: bf16 on a GPU, fp32 on a CPU.
    """

    precision: str | None = None

    column: ClassVar[str] = "prediction"

    def __call__(self, rows: Iterable[Row]) -> list[dict]:
        """The prediction for each row, as `predict` gives it; its `id` is the row's number, from 0.

        A row is a tuple; a text alone may stand for itself, and white space divides it where words are asked for.

        Raises:
            TypeError: a text in place of rows, a row or a part of it that is no text.
            ValueError: a row with another number of parts, half of a surrogate pair in a text.
        """
        if isinstance(rows, str | bytes):
            raise TypeError(f"rows must be a list of texts or of tuples, got {kind_of(rows)}")
        finetuned, name = self.load(), kind_name(self.load().kind)
        examples = (_example(name, number, row) for number, row in enumerate(rows))
        return list(predict(finetuned, examples, batch_tokens=self.batch_tokens))

    def arrow_type(self) -> pyarrow.DataType:
        return _arrow_type(load_kind(self.model))

    def of_table(self, table: pyarrow.Table) -> pyarrow.Array:
        import pyarrow

        kind = self.load().kind
        read = word_lists if kind_name(kind) == "tagging" else text_list
        if not table.num_columns:
            raise ValueError("predictions are of columns of texts or words, got none")
        columns = [read(*column) for column in zip(table.columns, table.column_names, strict=True)]
        return pyarrow.array(self(zip(*columns, strict=True)), _arrow_type(kind))

    def _load(self) -> Finetuned:
        return load_for_prediction(self.model, device=self.device, precision=self.precision, impl=self.impl)


def _arrow_type(kind: Kind) -> pyarrow.DataType:
    """The type of predictions without their `id`: a table has its own."""
    return arrow_type({name: type_ for name, type_ in kind.fields().items() if name != "id"})


def _example(name: str, number: int, row: Row) -> Example:
    """The example in row `number` for this kind."""
    if not isinstance(row, str | tuple | list):
        raise TypeError(f"row {number} must be a text or a tuple, got {kind_of(row)}")
    parts, place = (row,) if isinstance(row, str) else tuple(row), (str(number), number + 1)
    if name == "tagging" and len(parts) == 1:
        words = tuple(parts[0].split() if isinstance(parts[0], str) else parts[0])
        return TaggedExample(*place, _checked(words, number))
    parts = _checked(parts, number)
    if name == "qa" and len(parts) == 2:
        return QuestionExample(*place, *parts)
    if name == "choice" and len(parts) > 2:
        return ChoiceExample(*place, *parts[:2], parts[2:])
    if name in ("classification", "regression", "multilabel") and len(parts) in (1, 2):
        return TextExample(*place, *parts)
    raise ValueError(f"row {number} must have {_PARTS.get(name, 'a text, or a text and its pair')}, got {len(parts)}")


def _checked(texts: tuple[str, ...], number: int) -> tuple[str, ...]:
    for text in texts:
        check_text(text, f"the text in row {number}")
    return texts


_PARTS = {
    "tagging": "one list of words",
    "qa": "a question and a context",
    "choice": "a text, the beginning of every ending, and endings",
}
