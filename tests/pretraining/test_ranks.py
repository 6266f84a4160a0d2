"""The same run from any number of processes."""

import shutil

import pytest
import runs as runs_module
from runs import assert_same_run, curve, launch, run
from texts import documents

from electra_fast.model.packing import PackedBatch

FSDP = {"parallel": "fsdp"}
# All that once had to run eagerly on a GPU.
CHANGING = {"temperature": 2.0, "temperature_end": 0.5, "decoupled": True, "embedding_sharing": "nes"}
REPLAYING = """
import atexit, cpu_graphs
replaying = cpu_graphs.cpu_graphs()
graphs = replaying.__enter__()
atexit.register(lambda: print(f"{len(graphs)} recordings\\n", end="", flush=True))  # in one write: two processes print
"""
# The ways to share out a batch of 12.
WAYS = {
    "ddp": {},
    "ddp accumulating": {"accumulate": 2},
    "fsdp": FSDP,
    "fsdp accumulating": {"accumulate": 2, **FSDP},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory with `alone`, the run of one process, and the runs of two; `chain` stopped after steps 3 and 7, and
    `shards`, under FSDP, after step 6."""
    root = tmp_path_factory.mktemp("ranks")
    run(root / "alone")
    run(root / "chain", stop_after=3)
    calls = [(root / way, options) for way, options in WAYS.items()]
    calls += [(root / "chain", {"stop_after": 7}), (root / "shards", {"stop_after": 6, **FSDP})]
    code, printed = launch(calls, n_processes=2)
    assert code == 0, printed
    return root


def test_padding_that_stays_in_the_batch_changes_nothing(tmp_path, monkeypatch):
    """As on a GPU. The number of tokens and of scores is that of the text, too."""
    recipe = {"packing": "google", "dropout": 0.0}
    monkeypatch.setattr(runs_module, "documents", lambda: [text.replace(" ", "\n") for text in documents()])
    run(tmp_path / "without", recipe=recipe, accumulate=2)
    calls, with_padding = [], PackedBatch.with_padding
    monkeypatch.setattr(PackedBatch, "from_mask", lambda mask: calls.append(mask) or with_padding(mask))
    run(tmp_path / "with", recipe=recipe, accumulate=2)
    assert_same_run(tmp_path / "with", tmp_path / "without")
    assert len(calls) == 2 * 12 and not all(mask.all() for mask in calls)
    for name in ("discriminator_auc", "replaced_share"):
        found, expected = ([record[name] for record in curve(tmp_path / out)] for out in ("with", "without"))
        assert found == pytest.approx(expected, rel=1e-6)


def test_accumulation_changes_nothing(runs, tmp_path):
    run(tmp_path / "run", accumulate=3)
    assert_same_run(tmp_path / "run", runs / "alone")


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_make_the_updates_of_one(runs, way):
    assert_same_run(runs / way, runs / "alone")


def test_two_processes_replay_the_updates_of_one(tmp_path):
    """As CUDA graphs: on a CPU with a stand-in for them. Alone nothing is recorded."""
    options = {"recipe": CHANGING, "impl": "torch"}
    run(tmp_path / "alone", **options)
    ways = {"replayed": {}, "replayed accumulating": {"accumulate": 3}}
    calls = [(tmp_path / way, {**options, **more}) for way, more in ways.items()]
    code, printed = launch(calls, 2, REPLAYING)
    assert code == 0, printed
    assert printed.count("5 recordings") == 2, printed  # two, and three with accumulation
    for way in ways:
        # The generator's gradients are sums of few rows, those of masked tokens: one was found 1.3e-6 apart.
        assert_same_run(tmp_path / way, tmp_path / "alone", tolerance=3e-6)


@pytest.mark.parametrize(("name", "options"), [("chain", {}), ("shards", FSDP), ("shards", {})])
def test_one_process_goes_on_where_two_stopped(runs, tmp_path, name, options):
    copy = tmp_path / "run"
    shutil.copytree(runs / name, copy)
    run(copy, **options)
    assert_same_run(copy, runs / "alone")


@pytest.mark.parametrize("name", ["chain", "shards"])
def test_two_processes_agree_on_the_checkpoint_that_fits(runs, tmp_path, name):
    """The newest has a damaged file, that of one of the processes."""
    shutil.copytree(runs / name, tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    file = newest / "__1_0.distcp"
    file.write_bytes(file.read_bytes()[::-1])
    log = tmp_path / "run" / "log.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"end"' not in line))
    code, printed = launch([(tmp_path / "run", FSDP if name == "shards" else {})], n_processes=2)
    assert code == 0, printed
    line = (
        f"warning: {newest} does not fit: {file.name} is damaged: its checksum is another; the run goes on from step 4"
    )
    assert printed.count(line) == 1, printed
    assert_same_run(tmp_path / "run", runs / "alone")


@pytest.mark.slow
def test_three_processes_too(runs, tmp_path):
    """Alone, after one and two, and under FSDP after two: shards of another size than those that were saved."""
    for name in ("chain", "shards"):
        shutil.copytree(runs / name, tmp_path / name)
    calls = [(tmp_path / way, options) for way, options in WAYS.items()]
    calls += [(tmp_path / "chain", {}), (tmp_path / "shards", FSDP)]
    code, printed = launch(calls, n_processes=3)
    assert code == 0, printed
    for out, _ in calls:
        # Adam divides small gradients by their size, and with it enlarges what is rounded in a sum of three.
        assert_same_run(out, runs / "alone", tolerance=3e-6)
