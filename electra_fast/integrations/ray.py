"""Bulk inference on Ray Data: actors load the model once each, and Ray reads, moves and writes the tables."""

from __future__ import annotations

import pickle
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..inference.portable import Portable
from ..processor import cpu_threads

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

__all__ = ["with_column"]


def with_column(
    dataset: Dataset, function: Portable, *columns: str, name: str | None = None, batch_size: int = 4096, **options: Any
) -> Dataset:
    """The dataset with one column more, which has the results of an `Embedder` or a `Predictor`.

    Rows keep their order: the dataset's execution option `preserve_order` is set. An actor computes on as many threads
    as Ray assigned CPUs to it (`num_cpus`), at least one. An actor that dies is started again by Ray and gets the same
    rows, whose results are the same.

    Args:
        columns: the columns to read, in the order that `function` takes them: of text, or of lists of words.
        name: the name of the new column. Default: `function.column`.
        batch_size: rows that an actor gets at once. It sorts them by length, and they are what is lost with an actor.
        options: further arguments of `Dataset.map_batches`: `compute` (`ray.data.ActorPoolStrategy(size=2)` is two
            actors), `num_cpus` and `num_gpus` of each, `runtime_env`.

    Raises:
        ray.exceptions.RayTaskError: raised while Ray computes, caused by an ImportError for a worker without this
            package, a FileNotFoundError for one without the model, or a ValueError for a missing column or one that
            holds no text.
    """
    dataset.context.execution_options.preserve_order = True
    # Ray gives an actor whole blocks, and small files or large ones make few blocks.
    return dataset.repartition(target_num_rows_per_block=batch_size).map_batches(
        _actor(_Column(function, columns, name or function.column)),
        batch_size=None,
        batch_format="pyarrow",
        udf_modifying_row_count=False,
        **options,
    )


@dataclass(frozen=True)
class _Column:
    """What an actor does: it appends the column `name`, computed from `columns`."""

    function: Portable
    columns: tuple[str, ...]
    name: str

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        import ray

        if missing := [column for column in self.columns if column not in table.column_names]:
            raise ValueError(f"the table must have a column {missing[0]!r}, got {', '.join(table.column_names)}")
        if self.name in table.column_names:
            raise ValueError(f"the table has a column {self.name!r} already: give the new one another name")
        table = table.combine_chunks()  # Ray's write_parquet writes the chunks of a block in any order
        n_cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
        with cpu_threads(max(1, int(n_cpus))):
            return table.append_column(self.name, self.function.of_table(table.select(self.columns)))


def _actor(column: _Column) -> type:
    """The class of an actor. Ray sends a local class by value: a worker without this package can say what it lacks."""
    from ray import cloudpickle

    pickled = cloudpickle.dumps(column)

    class Actor:
        def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
            try:
                compute = pickle.loads(pickled)  # the model stays with the process
            except ImportError as error:
                raise ImportError(
                    f"the Ray worker on {platform.node()} must have what the driver has: {error}"
                ) from error
            return compute(table)

    Actor.__qualname__ = Actor.__name__ = type(column.function).__name__  # shown by Ray
    return Actor
