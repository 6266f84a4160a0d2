"""The kinds of tasks, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .choice import MultipleChoice
from .classification import Classification, MultiLabel, Regression
from .kind import Kind
from .question_answering import QuestionAnswering
from .tagging import Tagging

KINDS: dict[str, Callable[..., Kind]] = {
    "classification": Classification,
    "regression": Regression,
    "multilabel": MultiLabel,
    "tagging": Tagging,
    "choice": MultipleChoice,
    "qa": QuestionAnswering,
}


_KINDS_WITH_LABELS = ("classification", "multilabel", "tagging")


def make_kind(name: str, labels: tuple[str, ...] = (), options: Mapping[str, Any] | None = None) -> Kind:
    """Makes the kind with this name.

    Args:
        labels: names of its classes or tags; ignored by kinds without labels.
        options: further arguments of the kind's class.

    Raises:
        ValueError: the name or an option is not known.
    """
    if name not in KINDS:
        raise ValueError(f"the kind of a task must be one of {', '.join(KINDS)}, got {name!r}")
    arguments = (labels,) if name in _KINDS_WITH_LABELS else ()
    try:
        return KINDS[name](*arguments, **(options or {}))
    except TypeError as error:
        raise ValueError(f"the options must be those of the kind {name!r}, got: {error}") from error


def kind_name(kind: Kind) -> str:
    """The kind's key in `KINDS`."""
    return next(name for name, kind_class in KINDS.items() if type(kind) is kind_class)
