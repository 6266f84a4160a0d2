"""Bulk inference on Spark: a function of columns, for which each Python worker loads the model once."""

# Annotations are evaluated where they stand: Spark reads those of `compute`.
from typing import TYPE_CHECKING

from ..inference.portable import Portable
from ..processor import cpu_threads

if TYPE_CHECKING:
    from pyspark.sql.udf import UserDefinedFunction

__all__ = ["udf"]


def udf(function: Portable) -> "UserDefinedFunction":
    """A function for `withColumn`, `select` and `spark.udf.register`: an `Embedder` or a `Predictor` of columns.

    The columns are of text, or of lists of words, in the order that `function` takes them. A task computes on as many
    threads as it has CPUs (`spark.task.cpus`). Tasks that run again give the same results.

    Raises:
        ImportError: there is no Spark from 4.1 on.
        FileNotFoundError, ValueError: the driver lacks the model of a `Predictor`, whose labels decide the type.
        pyspark.errors.PythonException: raised while Spark computes, for a worker without this package or without the
            model, or a column that holds no text.
    """
    try:
        from pyspark import TaskContext
        from pyspark.sql.functions import arrow_udf
        from pyspark.sql.pandas.types import from_arrow_type
    except ImportError as error:
        raise ImportError("this needs Spark from 4.1 on: pip install 'electra_fast[spark]'") from error
    import pyarrow

    def compute(*columns: pyarrow.Array) -> pyarrow.Array:
        names = [f"argument {i + 1}" for i in range(len(columns))]
        with cpu_threads(TaskContext.get().cpus()):
            return function.of_table(pyarrow.table(list(columns), names=names))

    return arrow_udf(compute, from_arrow_type(function.arrow_type()))
