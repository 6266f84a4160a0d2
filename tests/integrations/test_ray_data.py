"""Ray Data: the vectors of `embed` and the predictions of `predict`, in order, whoever dies; and errors of workers."""

import logging
import os
import sys

import numpy as np
import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
from engine_tables import MODEL, NotingEmbedder, killed_in_its_second_call, texts, write_tables  # noqa: E402
from finetuned_models import write_finetuned  # noqa: E402
from pyarrow import parquet  # noqa: E402

from electra_fast import Embedder, embed  # noqa: E402
from electra_fast.finetuning import Predictor  # noqa: E402
from electra_fast.integrations.ray import with_column  # noqa: E402

pytestmark = pytest.mark.slow
TEXTS = [text or "" for text in texts()]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two CPUs for actors, and one for what reads and writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        ray.init(num_cpus=3, include_dashboard=False, object_store_memory=200 << 20, logging_level=logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("ray") / "in")


@pytest.fixture(scope="module")
def vectors():
    return embed(TEXTS, MODEL)


def computed(tables, function, *columns, n_actors=1, **options):
    """The dataset with the results, not yet computed."""
    options = {"compute": ray.data.ActorPoolStrategy(size=n_actors), "batch_size": 50, **options}
    return with_column(ray.data.read_parquet(str(tables)), function, *columns, **options)


def check(directory, vectors):
    """Holds what Ray wrote, file after file, against `embed`."""
    found = parquet.read_table(directory)
    assert found["row"].to_pylist() == list(range(len(TEXTS)))
    np.testing.assert_array_equal(np.array(found["embedding"].to_pylist(), np.float32), vectors)


def test_vectors_are_those_of_embed_in_order(tables, vectors, tmp_path):
    computed(tables, Embedder(MODEL, device="cpu"), "text", n_actors=2).write_parquet(str(tmp_path))
    check(tmp_path, vectors)


def test_nothing_is_lost_with_a_killed_actor(tables, vectors, tmp_path):
    (tmp_path / "notes").mkdir()
    embedder = NotingEmbedder(MODEL, device="cpu", notes=str(tmp_path / "notes"))
    with killed_in_its_second_call(tmp_path / "notes") as killed:
        computed(tables, embedder, "text", n_actors=2).write_parquet(str(tmp_path / "out"))
    check(tmp_path / "out", vectors)
    processes = {int(path.name.partition("-")[0]) for path in (tmp_path / "notes").iterdir()}
    assert len(killed) == 1 and len(processes - set(killed)) >= 2


@pytest.mark.parametrize("n_cpus", [1, 2])
def test_threads_are_the_cpus_of_an_actor(tables, tmp_path, n_cpus):
    embedder = NotingEmbedder(MODEL, device="cpu", notes=str(tmp_path))
    assert computed(tables, embedder, "text", num_cpus=n_cpus, batch_size=240).count() == len(TEXTS)
    assert {path.name.rpartition("-")[2] for path in tmp_path.iterdir()} == {str(n_cpus)}


def test_predictions_are_those_of_predict(tables, tmp_path):
    write_finetuned(tmp_path, "tagging")
    predictor = Predictor(str(tmp_path), device="cpu")
    rows = computed(tables, predictor, "words", name="tags").take_all()
    expected = predictor([(text.split(),) for text in TEXTS])
    assert [row["tags"]["tags"] for row in rows] == [prediction["tags"] for prediction in expected]


@pytest.mark.parametrize(
    ("model", "column", "message"),
    [
        (MODEL, "title", "ValueError: the table must have a column 'title', got row, text, words"),
        (MODEL, "words", "ValueError: the column 'words' must hold text, got list<"),
        ("/nowhere/model", "text", "FileNotFoundError: '/nowhere/model' is neither a directory nor a name of a model"),
    ],
    ids=["no-column", "lists", "no-model"],
)
def test_mistakes_are_told_by_the_worker(tables, model, column, message):
    with pytest.raises(ray.exceptions.RayTaskError, match=message):
        computed(tables, Embedder(model, device="cpu"), column).materialize()


def test_a_worker_without_the_package_says_so(tables, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['electra_fast'] = None  # an import of it fails\n", encoding="utf-8"
    )
    environment = {"env_vars": {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"}}
    with pytest.raises(
        ray.exceptions.RayTaskError, match=r"the Ray worker on \S+ must have what the driver has: .*electra_fast"
    ):
        computed(tables, Embedder(MODEL, device="cpu"), "text", runtime_env=environment).materialize()
