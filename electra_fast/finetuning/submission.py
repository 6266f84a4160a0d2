"""Files of predictions in the forms that GLUE and SQuAD accept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..disk import made, written

# The range of STS-B's scores.
_SCORES = (0.0, 5.0)


def write_glue(path: str | os.PathLike, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Writes the test predictions of a GLUE task as gluebenchmark.com takes them: a header, and index<TAB>prediction.

    Args:
        path: the file, such as CoLA.tsv. It is written whole or not at all; its directory is created if necessary.
        predictions: each has `id`, the number of the example in the test file, and `label`, or for STS-B `value`, a
            score that is clipped to [0, 5].

    Raises:
        ValueError: the ids are not 0, 1, 2, ...: examples are missing or out of order.
    """
    lines = ["index\tprediction"]
    for index, prediction in enumerate(predictions):
        if prediction["id"] != str(index):
            raise ValueError(f"{path}: ids must be the numbers of examples, {index} here, got {prediction['id']!r}")
        lines.append(f"{index}\t{_prediction(prediction)}")
    made(Path(path).parent)
    with written(path) as file:
        file.write("\n".join(lines) + "\n")


def write_squad(directory: str | os.PathLike, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Writes the files that SQuAD's evaluation takes, all of them or none.

    All three map the id of each question to something: predictions.json to the answer, nbest_predictions.json to the
    best answers, and null_odds.json to how much surer the network is that there is no answer.

    Args:
        directory: where the files go; created if necessary.
        predictions: each has `id`, `answer`, `n_best` and `null_odds`.
    """
    directory = Path(directory)
    fields = {"predictions.json": "answer", "null_odds.json": "null_odds", "nbest_predictions.json": "n_best"}
    contents = {
        name: json.dumps({p["id"]: p[field] for p in predictions}, indent=2, allow_nan=False) + "\n"
        for name, field in fields.items()
    }
    made(directory)
    with ExitStack() as files:
        for name, content in contents.items():
            file = files.enter_context(written(directory / name))
            file.write(content)
            file.flush()  # so that a full disk is noticed before the first file gets its name


def _prediction(prediction: Mapping[str, Any]) -> str:
    if "value" not in prediction:
        return prediction["label"]
    least, most = _SCORES
    return f"{min(max(prediction['value'], least), most):.3f}"
