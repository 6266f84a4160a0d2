"""Spark: the vectors of `embed` and the predictions of `predict`, whoever dies; and errors of workers."""

import os
import sys

import numpy as np
import pytest

pyspark = pytest.importorskip("pyspark")
from engine_tables import MODEL, N_FILES, NotingEmbedder, killed_in_its_second_call, texts, write_tables  # noqa: E402
from finetuned_models import write_finetuned  # noqa: E402
from pyarrow import parquet  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

from electra_fast import Embedder, embed  # noqa: E402
from electra_fast.finetuning import Predictor  # noqa: E402
from electra_fast.integrations.spark import udf  # noqa: E402

pytestmark = pytest.mark.slow
TEXTS = [text or "" for text in texts()]


@pytest.fixture(scope="module")
def spark():
    """Two tasks at once, each tried three times; batches of 30 rows, a file a task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        options = {
            "spark.ui.enabled": "false",
            "spark.driver.memory": "1g",
            "spark.driver.host": "localhost",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.execution.arrow.maxRecordsPerBatch": "30",
            "spark.sql.files.openCostInBytes": "200m",
        }
        session = SparkSession.builder.master("local[2,3]").config(map=options).getOrCreate()
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


@pytest.fixture(scope="module")
def table(spark, tmp_path_factory):
    found = spark.read.parquet(str(write_tables(tmp_path_factory.mktemp("spark") / "in")))
    assert found.rdd.getNumPartitions() == N_FILES
    return found


@pytest.fixture(scope="module")
def vectors():
    return embed(TEXTS, MODEL)


def check(directory, vectors):
    """Holds what Spark wrote against `embed`: by the rows' numbers, for Spark reads large files first."""
    found = parquet.read_table(directory).sort_by("row")
    assert found["row"].to_pylist() == list(range(len(TEXTS)))
    np.testing.assert_array_equal(np.array(found["embedding"].to_pylist(), np.float32), vectors)


def test_vectors_are_those_of_embed(table, vectors, tmp_path):
    embedder = Embedder(MODEL, device="cpu")
    table.withColumn("embedding", udf(embedder)("text")).write.parquet(str(tmp_path / "out"))
    check(tmp_path / "out", vectors)


def test_rows_of_a_partition_keep_their_order(table):
    found = table.select("row", udf(Embedder(MODEL, device="cpu"))("text")).collect()
    rows = [row["row"] for row in found]
    size = len(TEXTS) // N_FILES
    assert all(rows[i : i + size] == list(range(rows[i], rows[i] + size)) for i in range(0, len(rows), size))


def test_nothing_is_lost_with_a_killed_worker(table, vectors, tmp_path):
    (tmp_path / "notes").mkdir()
    embedder = NotingEmbedder(MODEL, device="cpu", notes=str(tmp_path / "notes"))
    with killed_in_its_second_call(tmp_path / "notes") as killed:
        table.withColumn("embedding", udf(embedder)("text")).write.parquet(str(tmp_path / "out"))
    check(tmp_path / "out", vectors)
    notes = [path.name.split("-") for path in (tmp_path / "notes").iterdir()]
    assert len(killed) == 1 and len({process for process, _, _ in notes} - set(map(str, killed))) >= 2
    assert {threads for _, _, threads in notes} == {"1"}  # spark.task.cpus


def test_predictions_are_those_of_predict(table, tmp_path):
    write_finetuned(tmp_path, "qa")
    predictor = Predictor(str(tmp_path), device="cpu")
    rows = table.select("row", udf(predictor)("text", "text").alias("prediction")).orderBy("row").limit(40).collect()
    expected = predictor([(text, text) for text in TEXTS[:40]])
    assert [{"id": str(row["row"]), **row["prediction"].asDict(recursive=True)} for row in rows] == expected


@pytest.mark.parametrize(
    ("model", "column", "message"),
    [
        (MODEL, "title", "name `title` cannot be resolved"),
        (MODEL, "row", "ValueError: the column 'argument 1' must hold text, got int64: cast it before"),
        ("/nowhere/model", "text", "FileNotFoundError: '/nowhere/model' is neither a directory nor a name of a model"),
    ],
    ids=["no-column", "numbers", "no-model"],
)
def test_mistakes_are_told(table, model, column, message):
    with pytest.raises(pyspark.errors.PySparkException, match=message):
        table.select(udf(Embedder(model, device="cpu"))(column)).collect()


def test_the_driver_needs_the_labels_of_a_predictor(spark):
    with pytest.raises(FileNotFoundError, match="/nowhere/model"):
        udf(Predictor("/nowhere/model"))
